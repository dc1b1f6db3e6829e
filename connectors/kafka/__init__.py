"""Kafka: topics and records."""
