"""Checks that the servers do what tests ask of them. Leaves nothing behind. Run by scripts/services_check."""
import contextlib
import json
import os
import sys
import time
import urllib.error

import confluent_kafka
from confluent_kafka.admin import NewTopic

import live
from live import Failed, http, postgres, mariadb, read, services

run = str(int(time.time()))


def step(name):
    def decorate(function):
        started = time.time()
        try:
            function()
        except Exception as error:
            sys.exit(f"FAILED {name}: {error}")
        print(f"ok {time.time() - started:6.1f} s  {name}", flush=True)
    return decorate


def expect(what, found, wanted):
    if found != wanted:
        raise Failed(f"{what}: {found!r} instead of {wanted!r}")


def refused(status, call):
    try:
        call()
    except urllib.error.HTTPError as error:
        expect("the status", error.code, status)
    else:
        raise Failed(f"was not refused with {status}")


def decode_json(payload):
    return json.loads(payload)


def rows(records, decode):
    """The rows that a topic of Debezium's leaves behind, as {id: name}."""
    table = {}
    for record in records:
        key = decode(record.key())["id"]
        change = decode(record.value()) if record.value() is not None else None
        if change is None or change["op"] == "d":
            table.pop(key, None)
        else:
            table[key] = change["after"]["name"]
    return table


def until_rows(topic, decode, wanted):
    read(topic, lambda records: rows(records, decode) == wanted)


@step("PostgreSQL and MariaDB to JSON and Avro, with Kafka and Connect killed in between")
def changes():
    table = f"check_{run}"
    create = "CREATE TABLE {0} (id int PRIMARY KEY, name text, price numeric(10, 2));"
    first = "INSERT INTO {0} VALUES (1, 'one', 1.50), (2, 'two', 2), (3, 'three', NULL);"
    then = "UPDATE {0} SET name = 'zwei' WHERE id = 2; DELETE FROM {0} WHERE id = 3; INSERT INTO {0} VALUES (4, 'vier', 4);"
    last = "ALTER TABLE {0} ADD COLUMN note text; UPDATE {0} SET name = 'ein' WHERE id = 1;"
    postgres((create + first).format(table) + f"ALTER TABLE {table} REPLICA IDENTITY FULL")
    mariadb((create + first).format(table))
    sources = []
    for number, (form, converters, decode) in enumerate((("json", live.json_converters(), decode_json),
                                                         ("avro", live.avro_converters(), live.decode_avro))):
        pg, maria = f"check_pg_{form}_{run}", f"check_maria_{form}_{run}"
        sources += [
            (pg, live.postgres_connector(pg, [f"public.{table}"], **converters, **{"provide.transaction.metadata": "true"}),
             f"{pg}.public.{table}", decode),
            (maria, live.mariadb_connector(maria, [f"alluvium.{table}"],
                                         server_id=5000 + int(run) % 1000 * 2 + number, **converters),
             f"{maria}.alluvium.{table}", decode)]

    def all_have(wanted):
        for _, _, topic, decode in sources:
            until_rows(topic, decode, wanted)

    with contextlib.ExitStack() as stack:
        stack.callback(postgres, f"DROP TABLE {table}")
        stack.callback(mariadb, f"DROP TABLE {table}")
        for name, settings, _, _ in sources:
            stack.enter_context(live.connector(name, settings))
        all_have({1: "one", 2: "two", 3: "three"})
        for name, _, _, _ in sources:
            live.until_snapshot_kept(name)
        services("kill", "kafka")
        services("kill", "connect")
        postgres(then.format(table))
        mariadb(then.format(table))
        services("start", "kafka", "connect")
        all_have({1: "one", 2: "zwei", 4: "vier"})
        services("kill", "connect")
        services("start", "connect")
        postgres(last.format(table))
        mariadb(last.format(table))
        all_have({1: "ein", 2: "zwei", 4: "vier"})
        for name, _, topic, decode in sources:
            live.until_running(name)
            if name.startswith("check_pg"):
                ended = read(f"{name}.transaction", lambda records: len(records) >= 2)
                expect("the transaction topic", {decode(r.value())["status"] for r in ended}, {"BEGIN", "END"})


@step("databases killed: committed rows are there, and the connectors of both go on")
def databases():
    name, table = f"check_db_{run}", f"check_db_{run}"
    pg = live.postgres_connector(f"{name}_p", [f"public.{table}"], **live.json_converters())
    maria = live.mariadb_connector(f"{name}_m", [f"alluvium.{table}"], server_id=9001, **live.json_converters())
    with contextlib.ExitStack() as stack:
        for sql, connector in ((postgres, pg), (mariadb, maria)):
            sql(f"CREATE TABLE {table} (id int PRIMARY KEY, name text)")
            stack.callback(sql, f"DROP TABLE {table}")
            stack.enter_context(live.connector(connector["topic.prefix"], connector))
            sql(f"INSERT INTO {table} VALUES (1, 'one')")
        services("kill", "postgres")
        services("kill", "mariadb")
        services("start", "postgres", "mariadb")
        for sql in (postgres, mariadb):
            expect("the rows", sql(f"SELECT name FROM {table}").strip(), "one")
            sql(f"INSERT INTO {table} VALUES (2, 'two')")
        until_rows(f"{name}_p.public.{table}", decode_json, {1: "one", 2: "two"})
        until_rows(f"{name}_m.alluvium.{table}", decode_json, {1: "one", 2: "two"})


@step("SASL_SSL with PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER; a wrong password is refused")
def sasl():
    def topics(mechanism, password, **settings):
        return live.admin(**{
            "bootstrap.servers": os.environ["ALLUVIUM_KAFKA_SASL_SSL"], "security.protocol": "SASL_SSL",
            "ssl.ca.location": os.environ["ALLUVIUM_KAFKA_CA"], "sasl.mechanism": mechanism,
            **({"sasl.username": os.environ["ALLUVIUM_KAFKA_USER"], "sasl.password": password} if password else {}), **settings,
        }).list_topics(timeout=5).topics

    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        topics(mechanism, os.environ["ALLUVIUM_KAFKA_PASSWORD"])
    topics("OAUTHBEARER", None, **{"enable.sasl.oauthbearer.unsecure.jwt": True, "sasl.oauthbearer.config": "principal=alluvium"})
    try:
        topics("SCRAM-SHA-256", "wrong")
    except confluent_kafka.KafkaException:
        return
    raise Failed("a wrong password was taken")


@step("topics: transactions, deletion of records by retention, compaction, no creation unasked")
def topics():
    admin = live.admin()
    names = [f"check_{kind}_{run}" for kind in ("tx", "retention", "compaction")]
    created = admin.create_topics([
        NewTopic(names[0], 1, 1),
        NewTopic(names[1], 1, 1, config={"retention.ms": "100", "segment.bytes": "1048576"}),
        NewTopic(names[2], 1, 1, config={"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01"})])
    for done in created.values():
        done.result()
    producer = confluent_kafka.Producer({"bootstrap.servers": live.KAFKA, "transactional.id": f"check-{run}", "log_level": 0})
    producer.init_transactions(30)
    for value, end in (("kept", producer.commit_transaction), ("aborted", producer.abort_transaction),
                       ("kept too", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(names[0], value)
        producer.flush(10)
        end(30)
    found = read(names[0], lambda records: len(records) >= 2, **{"isolation.level": "read_committed"})
    expect("committed records", [r.value().decode() for r in found], ["kept", "kept too"])

    plain = confluent_kafka.Producer({"bootstrap.servers": live.KAFKA, "linger.ms": 0, "batch.num.messages": 1, "log_level": 0})
    for topic in names[1:]:
        for at in range(40):   # of 100 kB each: several segments
            plain.produce(topic, os.urandom(100_000), key=b"key")
            plain.poll(0)
    plain.flush(30)
    consumer = confluent_kafka.Consumer({"bootstrap.servers": live.KAFKA, "group.id": f"check-{run}", "log_level": 0})
    at = confluent_kafka.TopicPartition(names[1], 0)
    live.until("retention to delete a segment", 30, lambda: consumer.get_watermark_offsets(at, timeout=10)[0] > 0)
    live.until("compaction", 60, lambda: len(read(names[2], lambda records: records and records[-1].offset() == 39)) < 30)
    consumer.close()
    try:
        consumer = confluent_kafka.Consumer({"bootstrap.servers": live.KAFKA, "group.id": f"check-{run}", "log_level": 0,
                                             "allow.auto.create.topics": True})
        found = consumer.list_topics(f"check_unknown_{run}", timeout=10).topics[f"check_unknown_{run}"]
        expect("the error of an unknown topic", found.error.code(), confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART)
    finally:
        consumer.close()
    for done in admin.delete_topics(names, operation_timeout=30).values():
        done.result()


@step("registry: Avro, JSON Schema and Protobuf, references, compatibility, deletion, basic authentication")
def registry():
    url, kind = live.REGISTRY, "application/vnd.schemaregistry.v1+json"

    def subject(name):
        return f"{url}/subjects/check-{run}-{name}"

    def register(name, text, of=None, references=None):
        body = {"schema": text} | ({"schemaType": of} if of else {}) | ({"references": references} if references else {})
        return http("POST", f"{subject(name)}/versions", body, kind)["id"]

    def record(name, *fields):
        return json.dumps({"type": "record", "name": name, "fields": list(fields)})

    id_field, note = {"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": None}
    first = register("avro", record("Order", id_field))
    expect("the id of the same schema", register("avro", record("Order", id_field)), first)
    expect("the schema of the id", json.loads(http("GET", f"{url}/schemas/ids/{first}")["schema"])["name"], "Order")
    second = register("avro", record("Order", id_field, note))
    expect("the versions", http("GET", f"{subject('avro')}/versions"), [1, 2])
    expect("the latest", http("GET", f"{subject('avro')}/versions/latest")["id"], second)

    http("PUT", f"{url}/config/check-{run}-avro", {"compatibility": "BACKWARD"}, kind)
    expect("the level", http("GET", f"{url}/config/check-{run}-avro")["compatibilityLevel"], "BACKWARD")
    required = record("Order", id_field, {"name": "needed", "type": "string"})
    tested = http("POST", f"{url}/compatibility/subjects/check-{run}-avro/versions/latest", {"schema": required}, kind)
    expect("compatible", tested["is_compatible"], False)
    refused(409, lambda: register("avro", required))

    register("customer", record("Customer", id_field))
    with_reference = register("referring", record("Sale", {"name": "customer", "type": "Customer"}), None,
                              [{"name": "Customer", "subject": f"check-{run}-customer", "version": 1}])
    expect("references", http("GET", f"{url}/schemas/ids/{with_reference}")["references"][0]["subject"], f"check-{run}-customer")

    of_json = register("json", json.dumps({"type": "object", "properties": {"id": {"type": "integer"}}}), "JSON")
    expect("the type", http("GET", f"{url}/schemas/ids/{of_json}")["schemaType"], "JSON")
    proto = 'syntax = "proto3"; message Order { int64 id = 1; string note = 2; }'
    of_proto = register("proto", proto, "PROTOBUF")
    expect("the type", http("GET", f"{url}/schemas/ids/{of_proto}")["schemaType"], "PROTOBUF")
    register("proto_referring", 'syntax = "proto3"; import "order.proto"; message Sale { Order order = 1; }', "PROTOBUF",
             [{"name": "order.proto", "subject": f"check-{run}-proto", "version": 1}])
    refused(404, lambda: http("GET", f"{url}/schemas/ids/999999999"))

    with_auth = os.environ["ALLUVIUM_REGISTRY_AUTH"]
    refused(401, lambda: http("GET", f"{with_auth}/subjects"))
    refused(401, lambda: http("GET", f"{with_auth}/subjects", user="alluvium:wrong"))
    user = f"{os.environ['ALLUVIUM_REGISTRY_USER']}:{os.environ['ALLUVIUM_REGISTRY_PASSWORD']}"
    expect("the schema, with a password", http("GET", f"{with_auth}/schemas/ids/{second}", user=user),
           http("GET", f"{url}/schemas/ids/{second}"))

    services("kill", "registry")
    services("start", "registry")
    expect("the id after a kill", register("avro", record("Order", id_field)), first)
    for name in ("referring", "customer", "avro", "json", "proto_referring", "proto"):
        http("DELETE", subject(name))
        http("DELETE", f"{subject(name)}?permanent=true")


print("all servers do what tests ask of them")
