"""Joint scoring between two processes: certificates, channel, dealt files, ledger, parties.

What is computed, and who is trusted with what, is told in ``tasks.privacy.shares``.
"""
