"""What the check and the recording of payloads share: addresses, SQL, connectors, topics and schemas of the running servers.

Addresses come from the environment that `scripts/services env` prints. Everything waits with a limit and says what for."""
import base64
import contextlib
import io
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import confluent_kafka
import confluent_kafka.admin
import fastavro

SERVICES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "services")
KAFKA = os.environ["ALLUVIUM_KAFKA"]
REGISTRY = os.environ["ALLUVIUM_REGISTRY"]
APICURIO = os.environ["ALLUVIUM_APICURIO"]
CONNECT = os.environ["ALLUVIUM_CONNECT"]
POSTGRES = urllib.parse.urlparse(os.environ["ALLUVIUM_POSTGRES"])
MARIADB = urllib.parse.urlparse(os.environ["ALLUVIUM_MARIADB"])


class Failed(Exception):
    pass


def services(*arguments):
    subprocess.run([SERVICES, *arguments], check=True)


def until(what, seconds, attempt):
    """The first true value of `attempt()`; errors of a server on its way up count as not yet."""
    limit = time.time() + seconds
    last = None
    while time.time() < limit:
        try:
            if value := attempt():
                return value
        except (urllib.error.URLError, OSError, confluent_kafka.KafkaException) as error:
            last = error
        time.sleep(0.1)
    raise Failed(f"waited {seconds} s for {what}" + (f"; the last error: {last}" if last else ""))


def http(method, url, body=None, content_type="application/json", user=None):
    """The answer's JSON. Errors of HTTP are raised as urllib's HTTPError."""
    data = None if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": content_type}, method=method)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
    except urllib.error.HTTPError as error:
        error.msg = f"{error.msg}: {method} {url}: {error.read().decode(errors='replace')}"
        raise
    return json.loads(text) if text else None


def run_sql(command, sql, **environment):
    done = subprocess.run(command, input=sql, text=True, capture_output=True, env={**os.environ, **environment})
    if done.returncode:
        raise Failed(f"could not run the statements: {done.stderr}")
    return done.stdout


def postgres(sql):
    return run_sql(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", POSTGRES.geturl()], sql)


def mariadb(sql):
    return run_sql(["mariadb", "--no-defaults", "-N", "-r", "-h", MARIADB.hostname, "-P", str(MARIADB.port), "-u", MARIADB.username,
                    f"-p{MARIADB.password}", MARIADB.path[1:]], sql)


def json_converters(schemas=False):
    return {f"{part}.converter{key}": value for part in ("key", "value") for key, value in {
        "": "org.apache.kafka.connect.json.JsonConverter", ".schemas.enable": str(schemas).lower()}.items()}


def avro_converters():
    """Confluent's wire format: a zero byte, four bytes of the id under which the registry's Confluent API has the schema."""
    return {"schema.name.adjustment.mode": "avro", "field.name.adjustment.mode": "avro"} | {
        f"{part}.converter{key}": value for part in ("key", "value") for key, value in {
            "": "io.apicurio.registry.utils.converter.AvroConverter", ".apicurio.registry.url": APICURIO,
            ".apicurio.registry.auto-register": "true", ".apicurio.registry.find-latest": "true",
            ".apicurio.registry.headers.enabled": "false", ".apicurio.registry.as-confluent": "true",
            ".apicurio.registry.use-id": "contentId"}.items()}


def postgres_connector(prefix, tables, **settings):
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": POSTGRES.hostname, "database.port": str(POSTGRES.port), "database.user": POSTGRES.username,
        "database.password": POSTGRES.password, "database.dbname": POSTGRES.path[1:], "plugin.name": "pgoutput",
        "slot.name": prefix, "publication.name": prefix, "publication.autocreate.mode": "filtered",
        "table.include.list": ",".join(tables), "topic.prefix": prefix, "poll.interval.ms": "50",
        "retriable.restart.connector.wait.ms": "1000",
        "topic.creation.default.replication.factor": "1", "topic.creation.default.partitions": "1"} | settings


def mariadb_connector(prefix, tables, *, server_id, **settings):
    return {
        "connector.class": "io.debezium.connector.mariadb.MariaDbConnector",
        "database.hostname": MARIADB.hostname, "database.port": str(MARIADB.port), "database.user": MARIADB.username,
        "database.password": MARIADB.password, "database.server.id": str(server_id), "database.include.list": MARIADB.path[1:],
        "table.include.list": ",".join(tables), "topic.prefix": prefix, "poll.interval.ms": "50",
        "connect.keep.alive.interval.ms": "1000", "retriable.restart.connector.wait.ms": "1000",
        "schema.history.internal.kafka.bootstrap.servers": KAFKA, "schema.history.internal.kafka.topic": f"{prefix}.history",
        "schema.history.internal.store.only.captured.tables.ddl": "true",
        "topic.creation.default.replication.factor": "1", "topic.creation.default.partitions": "1"} | settings


@contextlib.contextmanager
def connector(name, settings):
    """The connector while its task runs; afterwards it and all it left are gone."""
    try:
        start_connector(name, settings)
        yield
    finally:
        drop_connector(name, settings)


def start_connector(name, settings):
    http("PUT", f"{CONNECT}/connectors/{name}/config", settings)
    until_running(name)


def drop_connector(name, settings):
    """Removes a connector with its slot, publication, topics and schemas."""
    with contextlib.suppress(urllib.error.HTTPError):
        http("DELETE", f"{CONNECT}/connectors/{name}")
    if slot := settings.get("slot.name"):
        drop_slot(slot)
        postgres(f"DROP PUBLICATION IF EXISTS \"{settings['publication.name']}\"")
    prefix = settings["topic.prefix"]
    delete_topics(prefix)
    delete_topics(f"__debezium-heartbeat.{prefix}")
    for subject in http("GET", f"{REGISTRY}/subjects"):
        if subject.startswith((f"{prefix}.", f"{prefix}-", f"__debezium-heartbeat.{prefix}-")):
            http("DELETE", f"{REGISTRY}/subjects/{subject}")
            http("DELETE", f"{REGISTRY}/subjects/{subject}?permanent=true")


def drop_slot(name):
    until(f"the slot {name} to be free", 30, lambda: "t" not in postgres(
        f"SELECT active FROM pg_replication_slots WHERE slot_name = '{name}'"))
    postgres(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{name}'")


def until_running(name):
    def running():
        with contextlib.suppress(urllib.error.HTTPError):
            status = http("GET", f"{CONNECT}/connectors/{name}/status")
            for task in [status["connector"], *status["tasks"]]:
                if task["state"] == "FAILED":
                    raise Failed(f"connector {name} failed: {task['trace']}")
            return status["tasks"] and all(task["state"] == "RUNNING" for task in status["tasks"])

    until(f"connector {name} to run", 60, running)


def until_snapshot_kept(name):
    """Until Connect has noted that the first snapshot is done. A worker killed before takes another one: rows come again,
    and one deleted in between is never said to be deleted."""
    def kept():
        found = http("GET", f"{CONNECT}/connectors/{name}/offsets")["offsets"]
        return found and all("snapshot" not in o["offset"] or o["offset"].get("snapshot_completed") for o in found)

    until(f"connector {name} to keep that its snapshot is done", 120, kept)


def admin(**settings):
    return confluent_kafka.admin.AdminClient({"bootstrap.servers": KAFKA, "log_level": 0, **settings})


def delete_topics(prefix):
    client = admin()
    found = [topic for topic in client.list_topics(timeout=30).topics if topic == prefix or topic.startswith(f"{prefix}.")]
    for done in client.delete_topics(found, operation_timeout=30).values() if found else ():
        done.result()


def read(topic, enough, seconds=60, **settings):
    """All records of a topic from its start, once `enough(records)` holds of them."""
    records = []

    def fetch():
        if not consumer.assignment():
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            if partitions:
                consumer.assign([confluent_kafka.TopicPartition(topic, p, confluent_kafka.OFFSET_BEGINNING) for p in partitions])
        for message in consumer.consume(500, timeout=0.2):
            if message.error():
                raise confluent_kafka.KafkaException(message.error())
            records.append(message)
        return enough(records)

    consumer = confluent_kafka.Consumer({"bootstrap.servers": KAFKA, "group.id": "check", "enable.auto.commit": False,
                                         "log_level": 0, **settings})
    try:
        until(f"enough records of {topic}", seconds, fetch)
    except Failed as failed:
        raise Failed(f"{failed}; there were {len(records)}: {[m.value() for m in records]}") from None
    finally:
        consumer.close()
    return records


schemas = {}


def schema_of(payload):
    """The schema's id and its text, of a payload in Confluent's wire format."""
    if payload[0] != 0:
        raise Failed(f"{payload[:16]!r} does not begin with a zero byte")
    number = int.from_bytes(payload[1:5], "big")
    if number not in schemas:
        schemas[number] = http("GET", f"{REGISTRY}/schemas/ids/{number}")["schema"]
    return number, schemas[number]


def decode_avro(payload):
    _, text = schema_of(payload)
    return fastavro.schemaless_reader(io.BytesIO(payload[5:]), fastavro.parse_schema(json.loads(text)), None)
