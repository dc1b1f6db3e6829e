"""Flink: how a client reaches a cluster, and the jobs that run there."""
