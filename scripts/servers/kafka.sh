# Apache Kafka, one node that is broker and controller. Its install also holds the classes of Kafka Connect.
# Replicates nothing, creates no topic unasked, and looks for old segments twice a second, so that tests of retention are
# quick; keeps what is in a topic without retention.ms for ever.
# SASL_SSL takes PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, and OAUTHBEARER with unsigned tokens of any subject.
kafka_port_default=19092
kafka_sasl_ssl_port_default=19093
kafka_controller_port_default=19094

kafka_version() { echo 4.3.1; }
kafka_needs() { :; }
kafka_packages() {
  echo "org.apache.kafka:kafka_2.13:$(kafka_version) org.apache.kafka:connect-runtime:$(kafka_version)" \
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
}
kafka_install() {
  java_tools
  # shellcheck disable=SC2046  # a list of words
  maven_jars "$1/libs" $(kafka_packages)
}
kafka_address() { echo "127.0.0.1:$(port kafka), SASL_SSL 127.0.0.1:$(port kafka_sasl_ssl)"; }

# A request for the versions of its requests: answered once the broker serves.
kafka_answers() {
  python3 - "$(port kafka)" <<'END'
import socket, struct, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2) as s:
    s.settimeout(2)
    s.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
    sys.exit(0 if len(s.recv(12)) >= 10 else 1)
END
}

kafka_certificates() { # a CA of our own and the broker's certificate, for ten years
  [ ! -f tls/broker.pem ] || return 0
  mkdir -p tls
  local made="openssl req -newkey rsa:2048 -nodes -days 3650"
  $made -x509 -subj "/CN=Alluvium test CA" -keyout tls/ca.key -out tls/ca.pem 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout tls/broker.key -out tls/broker.csr 2>/dev/null
  openssl x509 -req -in tls/broker.csr -CA tls/ca.pem -CAkey tls/ca.key -CAcreateserial -days 3650 -out tls/broker.crt \
    -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
  cat tls/broker.key tls/broker.crt tls/ca.pem > tls/broker.pem
}

kafka_settings() {
  local plain="org.apache.kafka.common.security.plain.PlainLoginModule required"
  local scram="org.apache.kafka.common.security.scram.ScramLoginModule required"
  local bearer="org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
  cat <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$(port kafka_controller)
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$(port kafka),SASL_SSL://127.0.0.1:$(port kafka_sasl_ssl),CONTROLLER://127.0.0.1:$(port kafka_controller)
advertised.listeners=PLAINTEXT://127.0.0.1:$(port kafka),SASL_SSL://127.0.0.1:$(port kafka_sasl_ssl)
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$PWD/data

ssl.keystore.type=PEM
ssl.keystore.location=$PWD/tls/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$PWD/tls/ca.pem
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=$plain user_$user="$password";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$scram;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=$scram;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=$bearer;

auto.create.topics.enable=false
delete.topic.enable=true
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000

log.initial.task.delay.ms=500
log.retention.check.interval.ms=500
log.cleaner.backoff.ms=500
log.segment.delete.delay.ms=500
log.cleaner.dedupe.buffer.size=16777216
# Only a topic that asks for it forgets: by default records of last year, which tests write, would go at once.
log.retention.ms=-1
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
END
}

# Serial collection and the first compiler only: the servers share a machine with the tests.
kafka_java() { # kafka_java HEAP_MB CLASSPATH ARGUMENTS...: a Java of Kafka's
  local heap=$1 path=$2; shift 2
  exec java "-Xmx${heap}m" "-Xms64m" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError \
    -Djava.awt.headless=true "-Dlog4j2.configurationFile=$root/scripts/servers/log4j2.xml" -cp "$path" "$@"
}

kafka_run() {
  local scram="name=$user,password=$password"
  kafka_certificates
  kafka_settings > server.properties
  if [ ! -f data/meta.properties ]; then
    (kafka_java 256 "$1/libs/*" kafka.tools.StorageTool format --ignore-formatted --config server.properties \
      --cluster-id AlluviumTestCluster0AA \
      --add-scram "SCRAM-SHA-256=[$scram]" --add-scram "SCRAM-SHA-512=[$scram]")
  fi
  kafka_java 512 "$1/libs/*" kafka.Kafka server.properties
}
