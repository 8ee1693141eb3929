//! One folder for each kind of mistake, with the message that the user gets.

use super::*;

#[test]
fn each_kind_of_mistake_is_named_with_its_place_and_remedy() {
    let good = Folder::good();
    let mut wrong = Vec::new();
    for (folder, want) in mistakes(&good) {
        let found = printed(folder.load());
        if found != want {
            wrong.push(format!("wanted:\n{want}\nfound:\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
}

fn mistakes(good: &Folder) -> Vec<(Folder, &'static str)> {
    let good = || good.clone();
    let root = |text: &str| good().with("dataflow.toml", text);
    let feed = |text: &str| good().edit(INPUT, "kind = \"log\"\npath = \"live\"\nformat = \"json\"\n", text);
    let table = |text: &str| good().with("silver/orders.toml", text);
    vec![
        // dataflow.toml
        (
            root("name = shop\n"),
            "dataflow.toml:1:8: not valid TOML: string values must be quoted\n\
             \x20 help: text stands in quotes, as in name = \"retail\"",
        ),
        (
            root("name = \"shop\"\nname = \"x\"\n"),
            "dataflow.toml:2:1: not valid TOML: duplicate key\n\
             \x20 help: each setting stands once; remove one of the two",
        ),
        (
            root(""),
            "dataflow.toml: setting \"name\" is missing\n\
             \x20 help: add name = \"retail\"",
        ),
        (
            root("name = \"my shop\"\n"),
            "dataflow.toml:1:8: a dataflow cannot be called \"my shop\"\n\
             \x20 help: use letters, digits, _, - and . alone: the name stands in every transaction",
        ),
        (
            root("name = \"shop\"\nepock = \"10ms\"\n"),
            "dataflow.toml:2:1: unknown setting \"epock\"\n\
             \x20 help: did you mean \"epoch\"? known here: backfill_from, backfill_rate, commit, dead_letters, durability, epoch, guard, history, http, lake, max_record, max_rounds, max_value, memory_limit, name, registry, store",
        ),
        (
            root("name = \"shop\"\nmax_rounds = 0\n"),
            "dataflow.toml:2:14: setting \"max_rounds\" must be from 1 to 1000000\n\
             \x20 help: it is how often a recursive query may add rows to those that it has",
        ),
        (
            root("name = \"shop\"\nmax_value = \"2 GiB\"\n"),
            "dataflow.toml:2:13: setting \"max_value\" must be 1 GiB at most\n\
             \x20 help: a column of a batch holds less than 2 GiB; have the SQL compute shorter values",
        ),
        (
            root("name = \"shop\"\nzzz = 1\n"),
            "dataflow.toml:2:1: unknown setting \"zzz\"\n\
             \x20 help: known here: backfill_from, backfill_rate, commit, dead_letters, durability, epoch, guard, history, http, lake, max_record, max_rounds, max_value, memory_limit, name, registry, store",
        ),
        (
            root("name = \"shop\"\nepoch = 10\n"),
            "dataflow.toml:2:9: setting \"epoch\" must be text, and is a whole number\n\
             \x20 help: write epoch = \"10ms\"",
        ),
        (
            root("name = \"shop\"\nepoch = \"10 milis\"\n"),
            "dataflow.toml:2:9: setting \"epoch\" is no duration: \"10 milis\" (unknown unit \"milis\")\n\
             \x20 help: write a number and a unit (ms, s, min, h, days, years), as in epoch = \"10ms\"",
        ),
        (
            root("name = \"shop\"\ncommit = \"0s\"\n"),
            "dataflow.toml:2:10: setting \"commit\" is no duration: \"0s\" (it must be longer than nothing)\n\
             \x20 help: write a number and a unit (ms, s, min, h, days, years), as in commit = \"1s\"",
        ),
        (
            root("name = \"shop\"\ndurability = \"ful\"\n"),
            "dataflow.toml:2:14: setting \"durability\" cannot be \"ful\"\n\
             \x20 help: did you mean \"full\"? it is one of full, none",
        ),
        (
            root("name = \"shop\"\nlake = \"s4://bucket\"\n"),
            "dataflow.toml:2:8: bad lake \"s4://bucket\": unknown URL scheme \"s4\"\n\
             \x20 help: did you mean \"s3://\"? a location is a folder, or s3://, abfss://, az://, gs:// or file://",
        ),
        (
            root("name = \"shop\"\nlake = \"${BAD_LAKE}\"\n"),
            "dataflow.toml:2:8: bad lake \"${BAD_LAKE}\": unknown URL scheme \"ftp\"\n\
             \x20 help: a location is a folder, or s3://, abfss://, az://, gs:// or file://",
        ),
        (
            root("name = \"shop\"\nlake = \"${NOT_SET}/lake\"\n"),
            "dataflow.toml:2:8: environment variable NOT_SET is not set\n\
             \x20 help: set NOT_SET, or give a default: ${NOT_SET:-default}",
        ),
        (
            root("name = \"shop\"\n[store]\nacces_key_id = \"${SECRET}\"\n"),
            "dataflow.toml:3:1: unknown store option \"acces_key_id\"\n\
             \x20 help: did you mean \"access_key_id\"? known here: any option of S3, Azure or Google storage, such as access_key_id, region or account_name",
        ),
        // inputs
        (
            good().edit(INPUT, "\"BIGINT\"", "\"INTEGER\""),
            "inputs/orders.toml:4:6: unknown type \"INTEGER\"\n\
             \x20 help: did you mean INT? types are BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p,s), VARCHAR, BINARY, DATE, TIMESTAMP, and T[] of these",
        ),
        (
            good().edit(INPUT, "\"BIGINT\"", "\"DECIMAL(40,2)\""),
            "inputs/orders.toml:4:6: unknown type \"DECIMAL(40,2)\"\n\
             \x20 help: DECIMAL takes its digits in all (1 to 38) and those behind the point, as in DECIMAL(18,4)",
        ),
        (
            good().edit(INPUT, "\"BIGINT\"", "{ form = \"ID\" }"),
            "inputs/orders.toml:4:1: setting \"type\" is missing\n\
             \x20 help: add type = \"VARCHAR\"\n\
             inputs/orders.toml:4:8: unknown setting \"form\"\n\
             \x20 help: did you mean \"from\"? known here: format, from, null, nullable, type",
        ),
        (
            good().edit(INPUT, "\"BIGINT\"", "{ type = \"BIGINT\", format = \"%Y\" }"),
            "inputs/orders.toml:4:34: format \"%Y\" does not fit type BIGINT\n\
             \x20 help: write it as spreadsheets do, #,##0 or #,##0.00 or #.##0,00 or $#,##0.00",
        ),
        (
            good().edit(
                INPUT,
                "\"TIMESTAMP\"",
                "{ type = \"TIMESTAMP\", format = [\"%Y-%!\", \"epoch_ms\", \"yyyy-MM-dd\"] }",
            ),
            "inputs/orders.toml:5:38: format \"%Y-%!\" does not fit type TIMESTAMP\n\
             \x20 help: write it as in strftime, %Y-%m-%d %H:%M:%S, or epoch_s, epoch_ms, epoch_us, epoch_ns, epoch_days, cut_to_us\n\
             inputs/orders.toml:5:59: format \"yyyy-MM-dd\" does not fit type TIMESTAMP\n\
             \x20 help: write it as in strftime, %Y-%m-%d %H:%M:%S, or epoch_s, epoch_ms, epoch_us, epoch_ns, epoch_days, cut_to_us",
        ),
        (
            good().edit(
                INPUT,
                "\"TIMESTAMP\"",
                "{ type = \"TIMESTAMP\", format = [\"%H:%M\", \"%c %Z\"] }",
            ),
            "inputs/orders.toml:5:38: format \"%H:%M\" does not fit type TIMESTAMP: the pattern says no day\n\
             \x20 help: a point in time needs a year, month and day, as in %Y-%m-%d; declare VARCHAR, and complete the text in SQL, as in to_timestamp(month || '-01', '%Y-%m-%d')\n\
             inputs/orders.toml:5:47: format \"%c %Z\" does not fit type TIMESTAMP: the pattern has %Z, and the name of a zone says no offset\n\
             \x20 help: write %z for offsets as in +01:00; for texts that all end with UTC write UTC; for names as in Europe/Berlin declare VARCHAR, and write to_timestamp(text, '%Y-%m-%d %H:%M:%S %Z') in SQL",
        ),
        (
            good().edit(INPUT, "\"BIGINT\"", "{ type = \"BINARY[]\", format = \"base32\" }"),
            "inputs/orders.toml:4:36: format \"base32\" does not fit type BINARY[]\n\
             \x20 help: BINARY is base64, hex or utf8",
        ),
        (
            good().edit(INPUT, "[columns]\n", "[columns]\n\"a b\" = \"INT\"\nID = \"INT\"\n"),
            "inputs/orders.toml:4:1: a column cannot be called \"a b\"\n\
             \x20 help: Delta tables take no spaces and none of ,;{}()= in a column's name; name the field with from = \"...\"\n\
             inputs/orders.toml:6:1: columns \"ID\" and \"id\" differ only in case\n\
             \x20 help: Delta tables do not tell them apart; rename one, and name its field with from = \"...\"",
        ),
        (
            good().edit(INPUT, "[\"id\"]", "[\"idd\"]"),
            "inputs/orders.toml:1:8: key names column \"idd\", which does not exist\n\
             \x20 help: did you mean \"id\"? columns are id, at",
        ),
        (
            good().edit(INPUT, "[\"id\"]", "[\"id\", \"id\"]"),
            "inputs/orders.toml:1:14: key names column \"id\" twice\n\
             \x20 help: name it once",
        ),
        (
            good().edit(INPUT, "[\"at\"]", "\"when\""),
            "inputs/orders.toml:2:12: order_by names column \"when\", which does not exist\n\
             \x20 help: columns are id, at",
        ),
        (
            good().edit(INPUT, "order_by", "dedup_key"),
            "inputs/orders.toml:2:1: an input has a key or a dedup_key, not both\n\
             \x20 help: with a key the newest row counts, with a dedup_key the first; remove one of the two",
        ),
        (
            good().edit(INPUT, "key = [\"id\"]\n", ""),
            "inputs/orders.toml:1:1: order_by without a key orders nothing\n\
             \x20 help: it tells which version of a key is the newest: add key = [...], or remove order_by",
        ),
        (
            good().edit(
                INPUT,
                "[columns]",
                "retention = { column = \"id\", keep = \"3 yeers\" }\n[columns]",
            ),
            "inputs/orders.toml:3:24: retention goes by column \"id\", which is BIGINT\n\
             \x20 help: name a DATE or TIMESTAMP column\n\
             inputs/orders.toml:3:37: setting \"keep\" is no duration: \"3 yeers\" (unknown unit \"yeers\")\n\
             \x20 help: write a number and a unit (ms, s, min, h, days, years), as in keep = \"3 years\"",
        ),
        (
            good().edit(INPUT, "[columns]", "bronze = \"yes\"\n[columns]"),
            "inputs/orders.toml:3:10: setting \"bronze\" must be true or false, and is text\n\
             \x20 help: write bronze = true",
        ),
        // feeds
        (
            feed(
                "kind = \"kafka\"\nbrokers = \"http://one:9092\"\ntopics = [\"a b\"]\nformat = \"json\"\n\
                 start = \"earlyest\"\ntransactions = { topik = \"t\" }\noptions = { \"group.id\" = \"x\" }\n",
            ),
            "inputs/orders.toml:9:11: bad brokers \"http://one:9092\"\n\
             \x20 help: write hosts and ports, several by commas: \"one:9092,two:9092\"; how they are spoken to is options.\"security.protocol\"\n\
             inputs/orders.toml:10:10: bad topic \"a b\": a topic's name is made of up to 249 letters, digits, dots, _ and -\n\
             \x20 help: name a topic, or write a regular expression that starts with ^: \"^shop\\\\.public\\\\..*\"\n\
             inputs/orders.toml:12:9: setting \"start\" cannot be \"earlyest\"\n\
             \x20 help: did you mean \"earliest\"?\n\
             inputs/orders.toml:13:1: setting \"topic\" is missing\n\
             \x20 help: add topic = \"shop.transaction\"\n\
             inputs/orders.toml:13:18: unknown setting \"topik\"\n\
             \x20 help: did you mean \"topic\"? known here: topic, wait\n\
             inputs/orders.toml:14:13: option \"group.id\" cannot be set\n\
             \x20 help: remove it: it is the feed's setting group",
        ),
        (
            feed(
                "kind = \"kafka\"\nbrokers = \"one:9092\"\ntopics = [\"t\"]\nformat = \"debezium-json\"\n\
                 transactions = { topic = \"t\" }\n",
            ),
            "inputs/orders.toml:10:10: topic \"t\" tells of the feed's transactions, and is no data of it\n\
             \x20 help: remove it from topics; a feed without transactions may read it",
        ),
        (
            good().with("silver/orders.toml", "[kafka]\nbrokers = \"one:9092\"\ntopic = \"t\"\n"),
            "silver/orders.toml:1:2: a table without a key cannot go to a topic: rows that change or go are told by their key\n\
             \x20 help: add key = [...] to the table",
        ),
        (
            good().with(
                "silver/orders.toml",
                "key = [\"id\"]\n[kafka]\nbrokers = \"one:9092\"\ntopic = \"t\"\nformat = \"avro\"\n",
            ),
            "silver/orders.toml:2:2: format \"avro\" needs a schema registry\n\
             \x20 help: add registry = { url = \"http://localhost:8081\" } beside it or to dataflow.toml",
        ),
        // Several outputs to topics.
        (
            good()
                .with(
                    "dataflow.toml",
                    "name = \"shop\"\n[dead_letters]\nbrokers = \"one:9092\"\ntopic = \"t\"\n",
                )
                .with(
                    "silver/orders.toml",
                    "key = [\"id\"]\n[kafka]\nbrokers = \"one:9092\"\ntopic = \"t\"\noptions = { \"linger.ms\" = \"1\" }\n",
                )
                .with("gold/orders.sql", "SELECT * FROM silver.orders\n")
                .with(
                    "gold/orders.toml",
                    "key = [\"id\"]\n[kafka]\nbrokers = \"two:9092, one:9092\"\ntopic = \"u\"\n",
                )
                // Other brokers may have a topic with the same name.
                .with("gold/elsewhere.sql", "SELECT * FROM silver.orders\n")
                .with(
                    "gold/elsewhere.toml",
                    "key = [\"id\"]\n[kafka]\nbrokers = \"three:9092\"\ntopic = \"t\"\n",
                ),
            "silver/orders.toml: [dead_letters] goes to the same brokers by other options\n\
             \x20 help: write the same options for all that goes there: one producer sends it\n\
             silver/orders.toml: [dead_letters] goes to topic \"t\" as well\n\
             \x20 help: name a topic of its own: keys of both would mix\n\
             gold/orders.toml: brokers \"two:9092, one:9092\" are the cluster of [dead_letters], which says \"one:9092\"\n\
             \x20 help: write the same brokers for all that goes there: each spelling is a producer, and one would fence the other\n\
             gold/orders.toml: brokers \"two:9092, one:9092\" are the cluster of silver.orders, which says \"one:9092\"\n\
             \x20 help: write the same brokers for all that goes there: each spelling is a producer, and one would fence the other",
        ),
        // HTTP requests.
        (
            feed("kind = \"http\"\nformat = \"json\"\n"),
            "inputs/orders.toml: feed \"live\" waits for requests, and nobody listens for them\n\
             \x20 help: add [http] with listen = \"127.0.0.1:8080\" to dataflow.toml",
        ),
        (
            feed("kind = \"http\"\nformat = \"avro\"\npath = \"x\"\nlisten = \"x\"\nbrokers = \"x\"\nrate = 1\n").with(
                "dataflow.toml",
                "name = \"shop\"\n[http]\nlisten = \"127.0.0.1:8080\"\n",
            ),
            "inputs/orders.toml:9:10: format \"avro\" does not fit a feed of kind \"http\"\n\
             \x20 help: it takes json, debezium-json, canal-json, maxwell-json\n\
             inputs/orders.toml:10:1: setting \"path\" does not fit kind \"http\"\n\
             \x20 help: it belongs to kind \"files\" or \"log\"; remove it, or change the kind\n\
             inputs/orders.toml:11:1: setting \"listen\" is that of all feeds of kind \"http\"\n\
             \x20 help: move it into [http] of dataflow.toml\n\
             inputs/orders.toml:12:1: setting \"brokers\" does not fit kind \"http\"\n\
             \x20 help: it belongs to kind \"kafka\"; remove it, or change the kind\n\
             inputs/orders.toml:13:1: setting \"rate\" does not fit kind \"http\"\n\
             \x20 help: it belongs to kind \"generate\"; remove it, or change the kind",
        ),
        (
            feed(
                "kind = \"http\"\nformat = \"json\"\n[[feeds]]\nname = \"more\"\nkind = \"http\"\nformat = \"json\"\n",
            )
            .with("dataflow.toml", "name = \"shop\"\n[http]\nlisten = \"[::1]:8080\"\n"),
            "inputs/orders.toml: feeds \"live\" and \"more\" are both of kind \"http\"\n\
             \x20 help: requests name the input: keep one of the two, or make another input",
        ),
        (
            feed("kind = \"http\"\nformat = \"json\"\n").with(
                "dataflow.toml",
                "name = \"shop\"\nlake = \"s3://shop/lake\"\n[http]\nlisten = \"127.0.0.1:8080\"\n",
            ),
            "dataflow.toml: what requests bring is kept on a disk until a snapshot has it, and the lake is none\n\
             \x20 help: add [http] folder = \"/var/lib/alluvium/http\", on a disk that outlives the process and its machine's restarts",
        ),
        (
            root("name = \"shop\"\n[http]\nlisten = \"0.0.0.0:8080\"\n"),
            "dataflow.toml:3:10: whoever reaches 0.0.0.0:8080 could write into the inputs: there is no token\n\
             \x20 help: add token = \"${INGEST_TOKEN}\", made with: openssl rand -hex 32; or listen at 127.0.0.1",
        ),
        (
            root(
                "name = \"shop\"\n[http]\nlisten = \"me:http\"\ntoken = [\"too short\"]\nmax_bodi = \"1 MiB\"\nfolder = \"s3://x/y\"\n\
                  tls = { cert = \"none.pem\" }\n",
            ),
            "dataflow.toml:3:10: \"me:http\" is no address to listen at\n\
             \x20 help: write an address and a port: \"127.0.0.1:8080\" for this machine alone, \"0.0.0.0:8080\" for all\n\
             dataflow.toml:4:9: a token has 16 or more letters, digits and signs, and no spaces\n\
             \x20 help: make one with: openssl rand -hex 32, and name its variable: token = \"${INGEST_TOKEN}\"\n\
             dataflow.toml:5:1: unknown setting \"max_bodi\"\n\
             \x20 help: did you mean \"max_body\"? known here: folder, listen, max_body, max_waiting, remember, remember_most, timeout, tls, token\n\
             dataflow.toml:6:10: bad folder \"s3://x/y\": it is a URL\n\
             \x20 help: name a folder of a local disk: rows are there before the lake has them\n\
             dataflow.toml:7:1: setting \"key\" is missing\n\
             \x20 help: add key = \"server.key\"\n\
             dataflow.toml:7:16: there is no file \"none.pem\"\n\
             \x20 help: name a PEM file; a relative path starts at the dataflow's folder",
        ),
        (
            feed("kind = \"file\"\npath = \"x\"\nformat = \"csv\"\n"),
            "inputs/orders.toml:8:8: unknown kind of feed \"file\"\n\
             \x20 help: did you mean \"files\"? kinds are files, log, kafka, http, postgres, generate",
        ),
        (
            feed("kind = \"files\"\npath = \"drops/[x.csv\"\nformat = \"csv\"\n"),
            "inputs/orders.toml:9:8: bad path \"drops/[x.csv\": bad glob: invalid range pattern\n\
             \x20 help: * is any text, ? one character, ** any folders, [ab] one of these; [*] is a star itself",
        ),
        (
            feed("kind = \"files\"\npath = \"s3:/bucket/*.csv\"\nformat = \"csv\"\n"),
            "inputs/orders.toml:9:8: bad path \"s3:/bucket/*.csv\": the URL lacks \"//\" behind \"s3:\"\n\
             \x20 help: write s3://bucket/folder",
        ),
        (
            feed("kind = \"files\"\nformat = \"csv\"\n"),
            "inputs/orders.toml:6:1: setting \"path\" is missing\n\
             \x20 help: add path = \"drops/orders/*.csv\"",
        ),
        (
            feed("kind = \"log\"\npath = \"live/*.ndjson\"\nformat = \"json\"\n"),
            "inputs/orders.toml:9:8: bad path \"live/*.ndjson\": the embedded log is one local folder, not a glob\n\
             \x20 help: name the folder that holds 0.ndjson, 1.ndjson, ...; kind \"files\" takes globs and URLs",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"parquet\"\n"),
            "inputs/orders.toml:10:10: format \"parquet\" does not fit a feed of kind \"log\"\n\
             \x20 help: it takes json, debezium-json, avro, debezium-avro, json-schema, protobuf, canal-json, maxwell-json, raw",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json\"\ntables = [\"shop.orders\"]\n"),
            "inputs/orders.toml:11:1: setting \"tables\" does not fit here\n\
             \x20 help: it belongs to kind \"postgres\", and to the formats canal-json and maxwell-json; remove it",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"canal-json\"\ntables = [\"orders\"]\n"),
            "inputs/orders.toml:11:10: \"orders\" names no table\n\
             \x20 help: write schema and table, as in tables = [\"public.orders\"]",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"raw\"\nunavailable = \"(gone)\"\n"),
            "inputs/orders.toml:11:1: setting \"unavailable\" does not fit format \"raw\"\n\
             \x20 help: it is for records that Debezium wrote; remove it",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"debezium-avro\"\n"),
            "inputs/orders.toml:6:1: format \"debezium-avro\" of records needs a schema registry, and there is none\n\
             \x20 help: add registry = { url = \"http://localhost:8081\" } to the feed, the input or dataflow.toml",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json\"\nkey_format = \"avro\"\n"),
            "inputs/orders.toml:6:1: the format of the keys needs a schema registry, and there is none\n\
             \x20 help: add registry = { url = \"http://localhost:8081\" } to the feed, the input or dataflow.toml",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"avro\"\nregistry = { url = \"localhost:8081\" }\n"),
            "inputs/orders.toml:11:20: \"localhost:8081\" is no address of a registry\n\
             \x20 help: write http://host:8081 or https://...; several are separated by commas",
        ),
        (
            feed(
                "kind = \"log\"\npath = \"live\"\nformat = \"avro\"\nregistry = { url = \"http://me:secret@host\" }\n",
            ),
            "inputs/orders.toml:11:20: the registry's address holds a name or a password\n\
             \x20 help: write them as username = \"${REGISTRY_USER}\" and password = \"${REGISTRY_PASSWORD}\": addresses are printed",
        ),
        (
            feed(
                "kind = \"log\"\npath = \"live\"\nformat = \"avro\"\nregistry = { url = \"http://host\", username = \"me\" }\n",
            ),
            "inputs/orders.toml:11:35: a registry's username without a password\n\
             \x20 help: add password = \"${REGISTRY_PASSWORD}\"",
        ),
        (
            feed(
                "kind = \"log\"\npath = \"live\"\nformat = \"avro\"\nregistry = { url = \"http://host\", pasword = \"me\" }\n",
            ),
            "inputs/orders.toml:11:35: unknown setting \"pasword\"\n\
             \x20 help: did you mean \"password\"? known here: ca, password, subject, token, url, username, version",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json\"\nschema = \"evolve\"\n"),
            "inputs/orders.toml:11:10: records of format \"json\" have no schema to trust, so their columns cannot evolve\n\
             \x20 help: fields that no column takes are counted by `run`: name them in [columns], or send records behind schema ids (avro, \
             debezium-avro, json-schema, protobuf)",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json-schema\"\nschema = \"evolve\"\n"),
            "inputs/orders.toml:11:10: a schema evolves by what a registry says, and there is none\n\
             \x20 help: add registry = { url = \"http://localhost:8081\" } to the feed, the input or dataflow.toml",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json\"\nschema = \"evolves\"\n"),
            "inputs/orders.toml:11:10: setting \"schema\" cannot be \"evolves\"\n\
             \x20 help: did you mean \"evolve\"? it is one of fixed, evolve",
        ),
        (
            feed("kind = \"files\"\npath = \"x.avro\"\nformat = \"avro\"\nschema = \"evolve\"\n"),
            "inputs/orders.toml:11:1: setting \"schema\" does not fit kind \"files\"\n\
             \x20 help: it is for records of a stream, not for files; remove it",
        ),
        (
            feed("kind = \"files\"\npath = \"x.avro\"\nformat = \"avro\"\nregistry = { url = \"http://host\" }\n"),
            "inputs/orders.toml:11:1: setting \"registry\" does not fit kind \"files\"\n\
             \x20 help: it is for records of a stream, not for files; remove it",
        ),
        (
            feed("kind = \"files\"\npath = \"x.json\"\nformat = \"jsonl\"\n"),
            "inputs/orders.toml:10:10: unknown format \"jsonl\"\n\
             \x20 help: did you mean \"ndjson\"? formats are csv, ndjson, json, parquet, avro, debezium-json, debezium-avro, json-schema, protobuf, canal-json, maxwell-json, raw",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json\"\nrate = 5\n"),
            "inputs/orders.toml:11:1: setting \"rate\" does not fit kind \"log\"\n\
             \x20 help: it belongs to kind \"generate\"; remove it, or change the kind",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json\"\ncolumns.idd.from = \"ID\"\n"),
            "inputs/orders.toml:11:9: the feed overrides column \"idd\", which does not exist\n\
             \x20 help: did you mean \"id\"? columns are id, at",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json\"\ncolumns.id.type = \"INT\"\n"),
            "inputs/orders.toml:11:12: a feed cannot override \"type\" of a column\n\
             \x20 help: set it in [columns] of the input: it is the same for all feeds",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json\"\nmax_record = \"2 GiB\"\n"),
            "inputs/orders.toml:11:14: setting \"max_record\" must be 1 GiB at most\n\
             \x20 help: a batch of records holds less than 2 GiB; have the source write smaller records",
        ),
        (
            feed("kind = \"log\"\npath = \"live\"\nformat = \"json\"\nmax_record = \"much\"\n"),
            "inputs/orders.toml:11:14: setting \"max_record\" is no amount of memory: \"much\"\n\
             \x20 help: write a number and a unit (MB, GB, MiB, GiB), as in max_record = \"4 GiB\"",
        ),
        (
            feed("kind = \"generate\"\ngenerator = \"telemetry\"\nlate = 1.5\nrate = -1\npartitions = 0\n"),
            "inputs/orders.toml:9:13: unknown generator \"telemetry\"\n\
             \x20 help: did you mean \"devices.telemetry\"? generators are retail.order_lines, retail.products, \
             retail.customers, retail.stock_movements, retail.redemptions, devices.telemetry, logistics.tickets, \
             logistics.permits, logistics.trips\n\
             inputs/orders.toml:10:8: setting \"late\" is a share of all events, and not from 0 to 1\n\
             \x20 help: write late = 0.01 for one event in a hundred\n\
             inputs/orders.toml:11:8: setting \"rate\" must be above 0\n\
             \x20 help: it is in events per second; without it events come as fast as possible\n\
             inputs/orders.toml:12:14: setting \"partitions\" must be 1 to 1024\n\
             \x20 help: write partitions = 4",
        ),
        (
            feed("kind = \"generate\"\ngenerator = \"retail.products\"\nformat = \"csv\"\n"),
            "inputs/orders.toml:10:10: format \"csv\" does not fit this generator\n\
             \x20 help: it takes debezium-json",
        ),
        (
            feed("kind = \"generate\"\ngenerator = \"retail.products\"\nupdates = 0.6\ndeletes = 0.5\n"),
            "inputs/orders.toml:6:1: the shares of updates, deletes, duplicates, late and broken events are more than 1 together\n\
             \x20 help: what they leave of 1 is new rows; make them smaller",
        ),
        (
            feed(
                "kind = \"log\"\npath = \"a\"\nformat = \"json\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"b\"\nformat = \"json\"\n",
            ),
            "inputs/orders.toml:12:8: two feeds are called \"live\"\n\
             \x20 help: rename one: progress is kept under a feed's name",
        ),
        (
            good().edit(INPUT, "[[feeds]]", "[feeds]"),
            "inputs/orders.toml:6:1: setting \"feeds\" must be a list of tables, and is a table\n\
             \x20 help: write [[feeds]] with name = \"drops\", kind, path and format below it",
        ),
        (
            feed("").edit(INPUT, "[[feeds]]\nname = \"live\"\n", ""),
            "inputs/orders.toml: the input has no feeds: nothing would ever arrive\n\
             \x20 help: add [[feeds]] with name = \"drops\", kind, path and format below it",
        ),
        (
            feed("kind = \"files\"\npath = \"d\"\nformat = \"csv\"\nquote = \"\"\nescape = \"\\\\\"\n"),
            "inputs/orders.toml:12:1: escape holds inside quotes alone, and quote = \"\" says that there are none\n\
             \x20 help: remove escape, or have fields written in quotes (FIELDS ENCLOSED BY '\"' of MySQL, FORMAT csv of \
             PostgreSQL) and remove quote",
        ),
        // tables
        (
            table("partition_bye = [\"day\"]\n"),
            "silver/orders.toml:1:1: unknown setting \"partition_bye\"\n\
             \x20 help: did you mean \"partition_by\"? known here: change_data_feed, deletes, description, expect, kafka, key, partition_by, retention",
        ),
        (
            table("[expect.cheap]\nchek = \"id > 0\"\non_violation = \"dropp\"\n"),
            "silver/orders.toml:1:9: setting \"check\" is missing\n\
             \x20 help: add check = \"unit_price >= 0\"\n\
             silver/orders.toml:2:1: unknown setting \"chek\"\n\
             \x20 help: did you mean \"check\"? known here: check, on_violation\n\
             silver/orders.toml:3:16: setting \"on_violation\" cannot be \"dropp\"\n\
             \x20 help: did you mean \"drop\"? it is one of warn, drop, fail",
        ),
        (
            table("deletes = \"vector\"\nchange_data_feed = 1\n"),
            "silver/orders.toml:1:11: setting \"deletes\" cannot be \"vector\"\n\
             \x20 help: did you mean \"vectors\"? it is one of auto, vectors, rewrite\n\
             silver/orders.toml:2:20: setting \"change_data_feed\" must be true or false, and is a whole number\n\
             \x20 help: write change_data_feed = true",
        ),
        (
            good().with("silver/order.toml", "key = [\"id\"]\n"),
            "silver/order.toml: settings of a table that does not exist: there is no silver/order.sql\n\
             \x20 help: did you mean \"orders\"? a table's settings are called as its SQL file",
        ),
        (
            good().with("gold/empty.sql", "-- to come\n"),
            "gold/empty.sql: the SQL file is empty\n\
             \x20 help: write one SELECT, or remove the file",
        ),
        (
            good().with("gold/open.sql", "SELECT 'a\n"),
            "gold/open.sql:1:8: could not read the SQL: unterminated string literal\n\
             \x20 help: close the quote or comment that starts here",
        ),
        (
            good().with("gold/x.sql", "SELECT *\nFROM silver.order\n"),
            "gold/x.sql:2:6: unknown table silver.order\n\
             \x20 help: did you mean silver.orders? tables are silver.orders, gold.x",
        ),
        (
            good()
                .with("gold/a.sql", "SELECT * FROM silver.b")
                .with("silver/b.sql", "SELECT * FROM\n  gold.a"),
            "silver/b.sql:2:3: tables read each other in a circle: silver.b -> gold.a -> silver.b\n\
             \x20 help: a table reads only tables that do not read it; take one of these references out",
        ),
        (
            good().with("gold/a.sql", "SELECT * FROM gold.a"),
            "gold/a.sql:1:15: tables read each other in a circle: gold.a -> gold.a\n\
             \x20 help: a table reads only tables that do not read it; take one of these references out",
        ),
        (
            good().with("gold/My-Table.sql", "SELECT 1"),
            "gold/My-Table.sql: \"My-Table\" cannot be a name in SQL\n\
             \x20 help: rename the file: small letters, digits and _, and no digit first",
        ),
        (
            good().with("gold/more/x.sql", "SELECT 1"),
            "gold/more: folders inside gold/ are not read\n\
             \x20 help: move its files up into gold/, and remove the folder",
        ),
        // the folder
        (
            good().without(INPUT).with("input/orders.toml", ""),
            "inputs: the dataflow has no inputs\n\
             \x20 help: rename the folder \"input\" to \"inputs\"",
        ),
        (
            good().with("inputs/silver.toml", "columns.a = \"INT\"\nfeeds = []\n"),
            "inputs/silver.toml: an input cannot be called \"silver\", which is a layer's name\n\
             \x20 help: rename the file\n\
             inputs/silver.toml: the input has no feeds: nothing would ever arrive\n\
             \x20 help: add [[feeds]] with name = \"drops\", kind, path and format below it",
        ),
    ]
}

#[test]
fn mistakes_of_all_files_come_in_one_run_in_the_order_of_files_and_lines() {
    let folder = Folder::good()
        .with("dataflow.toml", "lake = 5\nepock = \"1s\"\n")
        .edit(INPUT, "[\"at\"]", "[\"att\"]")
        .edit(INPUT, "\"BIGINT\"", "\"LONG\"")
        .with("silver/orders.sql", "SELECT * FROM gold.nothing")
        .with("gold/a.sql", "SELECT * FROM silver.orders, silver.order")
        .with("gold/a.toml", "kee = [\"x\"]\n");
    let found = folder.load().expect_err("a folder with mistakes");
    let places: Vec<String> = found
        .0
        .iter()
        .map(|d| format!("{}:{}:{} {}", d.file.display(), d.line, d.column, d.message))
        .collect();
    assert_eq!(
        places,
        [
            "dataflow.toml:0:0 setting \"name\" is missing",
            "dataflow.toml:1:8 setting \"lake\" must be text, and is a whole number",
            "dataflow.toml:2:1 unknown setting \"epock\"",
            "inputs/orders.toml:2:13 order_by names column \"att\", which does not exist",
            "inputs/orders.toml:4:6 unknown type \"LONG\"",
            "silver/orders.sql:1:15 unknown table gold.nothing",
            "gold/a.sql:1:30 unknown table silver.order",
            "gold/a.toml:1:1 unknown setting \"kee\"",
        ]
    );
    assert!(found.0.iter().all(|d| d.help.is_some()));
}

#[test]
fn a_file_that_is_half_toml_still_tells_its_other_mistakes_and_calls_nothing_missing() {
    let folder = Folder::good().with("dataflow.toml", "epock = \"1s\"\nname = shop\nlake = = 5\ncommit = 3\n");
    let found = folder.load().expect_err("a folder with mistakes");
    let places: Vec<(usize, &str)> = found.0.iter().map(|d| (d.line, d.message.as_str())).collect();
    assert_eq!(places[0], (1, "unknown setting \"epock\""));
    assert_eq!(places[1], (2, "not valid TOML: string values must be quoted"));
    assert!(
        places[2].0 == 3 && places[2].1.starts_with("not valid TOML"),
        "{places:?}"
    );
    assert_eq!(places[3], (4, "setting \"commit\" must be text, and is a whole number"));
    assert_eq!(places.len(), 4, "{places:?}");
}

#[test]
fn a_file_that_is_no_text_and_a_byte_order_mark_are_told_apart() {
    let scratch = Folder::good().write();
    std::fs::write(scratch.path().join("dataflow.toml"), "\u{feff}name = \"shop\"\n").expect("a file");
    load(scratch.path(), &env).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    std::fs::write(scratch.path().join("dataflow.toml"), b"name = \"shop\"\n# \xff\n").expect("a file");
    assert_eq!(
        printed(load(scratch.path(), &env)),
        "dataflow.toml:2: not UTF-8 text\n  help: save the file as UTF-8"
    );
}

#[test]
fn a_folder_that_is_no_dataflow_is_refused() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let found = printed(load(scratch.path(), &env));
    assert!(
        found.starts_with("dataflow.toml: there is no dataflow.toml in "),
        "{found}"
    );
    assert!(found.ends_with("or make one: alluvium init NAME"), "{found}");
}

#[test]
fn a_secret_never_shows_in_a_mistake() {
    let folder = Folder::good().with(
        "dataflow.toml",
        "name = \"${SECRET} \"\nlake = \"s3://k:${SECRET}@b\"\nepoch = \"1 ${SECRET}\"\ndurability = \"${SECRET}\"\n",
    );
    let found = printed(folder.load());
    assert_eq!(found.matches("help:").count(), 4, "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

/// A feed read what the run wrote, which made the run write more.
#[test]
fn a_feed_that_would_read_the_lakes_own_files_is_refused() {
    let mistakes = |lake: &str, path: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("inputs")).expect("a folder");
        let root = format!("name = \"t\"\nlake = \"{lake}\"\n");
        std::fs::write(folder.path().join("dataflow.toml"), root).expect("a file");
        let input = format!(
            "[columns]\na = \"INT\"\n[[feeds]]\nname = \"f\"\nkind = \"files\"\nformat = \"parquet\"\npath = \"{path}\"\n"
        );
        std::fs::write(folder.path().join("inputs/orders.toml"), input).expect("a file");
        match load(folder.path(), &|_| None) {
            Ok(_) => String::new(),
            Err(mistakes) => mistakes.to_string(),
        }
    };
    for (lake, path) in [
        ("lake", "**/*.parquet"),
        ("lake", "lake/bronze/orders/*"),
        ("lake", "lake/*/*/*"),
        ("s3://bucket/x/lake", "s3://bucket/x/**/*.parquet"),
    ] {
        let said = mistakes(lake, path);
        assert!(
            said.starts_with("inputs/orders.toml: feed \"f\" would read the lake's own files, such as ")
                && said.contains("bronze/orders/part-"),
            "{lake} {path}: {said}"
        );
    }
    for (lake, path) in [
        ("lake", "**/*.csv"),
        ("lake", "drops/**/*.parquet"),
        (".lake", "**/*.parquet"),
        ("s3://bucket/lake", "s3://bucket/lake-drops/*"),
    ] {
        assert_eq!(mistakes(lake, path), "", "{lake} {path}");
    }
}
