from __future__ import annotations

import pytest

from connectors.kafka.topics import StreamTopics, Topic, delete_topics, ensure_topics
from infra.errors import ConfigurationError


def described(servers: str, name: str, key: str) -> str:
    from confluent_kafka.admin import AdminClient, ConfigResource

    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    client = AdminClient({"bootstrap.servers": servers})  # kept until its answer is there
    found = client.describe_configs([resource])
    return found[resource].result(timeout=20)[key].value


def partitions(servers: str, name: str) -> int:
    from confluent_kafka.admin import AdminClient

    found = AdminClient({"bootstrap.servers": servers}).list_topics(name, timeout=20)
    return len(found.topics[name].partitions)


def test_the_topics_of_a_stream_are_made_once(kafka_servers):
    topics = StreamTopics("bank-1", partitions=3)
    made = ensure_topics(kafka_servers, topics.all)
    assert set(made) == {topic.name for topic in topics.all}
    assert ensure_topics(kafka_servers, topics.all) == []
    for part, count, policy in (("transactions", 3, "delete"), ("state", 3, "compact")):
        name = topics.name(part)
        assert partitions(kafka_servers, name) == count
        assert described(kafka_servers, name, "cleanup.policy") == policy
    days = int(described(kafka_servers, topics.name("dead-letters"), "retention.ms")) / 86_400_000
    assert days == 30

    # Other partitions would part keys from their history: what is there stays.
    assert ensure_topics(kafka_servers, [Topic(topics.name("scores"), 8)]) == []
    assert partitions(kafka_servers, topics.name("scores")) == 3
    delete_topics(kafka_servers, [*made, "penstock.bank-1.never"])
    assert ensure_topics(kafka_servers, [Topic(topics.name("late"), 1)]) == [topics.name("late")]


@pytest.mark.parametrize(
    ("name", "partitions"), [("Bank", 1), ("", 1), ("a b", 1), ("bank", 0), ("bank", 721)]
)
def test_what_kafka_would_refuse_is_refused_first(name, partitions):
    with pytest.raises(ConfigurationError):
        StreamTopics(name, partitions)
