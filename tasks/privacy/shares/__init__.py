"""Joint scoring: two parties score together without showing each other rows or weights.

Pure computation: what the trusted dealer makes, what each party computes between messages, what is
proved about it. Sockets, files and processes are ``connectors.private.joint``.

Who is trusted with what, everywhere below:

- Both parties are semi-honest: they follow the protocol and may look at all they get. A party that
  deviates can make scores wrong and, by wrong inputs, learn what a wrong question answers.
- The **trusted dealer** is a third house. It never sees a row, a weight, a score or a message. But
  a dealer that plots with one party shows it everything of the other, and a dealer that deals wrong
  numbers makes scores wrong.
"""
