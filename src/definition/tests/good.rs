//! Folders that load, and the definitions that result; and the richest of them, with damage.

use super::*;

#[test]
fn the_small_folder_loads() {
    let dataflow = loaded(&Folder::good());
    assert_eq!(dataflow.name, "shop");
    assert_eq!(
        (dataflow.epoch, dataflow.commit),
        (Duration::from_millis(10), Duration::from_secs(1))
    );
    assert!(dataflow.durable && !dataflow.guard);
    assert_eq!(dataflow.history, Duration::from_secs(24 * 3600));
    assert!(dataflow.lake.ends_with("/lake") && dataflow.lake.starts_with('/'));
    let input = &dataflow.inputs[0];
    assert!(input.bronze && input.retention.is_none() && input.dedup_key.is_empty());
    assert_eq!(input.feeds[0].columns, input.columns);
    assert_eq!(input.file, Path::new(INPUT));
}

#[test]
fn a_feed_takes_records_as_long_as_it_says_or_as_the_dataflow_does() {
    let longest = |root: &str, feed: &str| {
        let folder = Folder::good()
            .with("dataflow.toml", &format!("name = \"shop\"\n{root}"))
            .edit(INPUT, "format = \"json\"\n", &format!("format = \"json\"\n{feed}"));
        loaded(&folder).inputs[0].feeds[0].max_record
    };
    assert_eq!(longest("", ""), 16 << 20);
    assert_eq!(longest("max_record = \"1 MiB\"", ""), 1 << 20);
    assert_eq!(longest("max_record = \"1 MiB\"", "max_record = \"64 MiB\""), 64 << 20);
    assert_eq!(longest("", "max_record = \"2 MiB\""), 2 << 20);
}

/// A folder that uses nearly every setting.
fn rich() -> Folder {
    Folder(BTreeMap::new())
        .with(
            "dataflow.toml",
            "name = \"retail\"\nlake = \"${BUCKET}/retail\"\nepoch = \"5ms\"\ncommit = \"25ms\"\n\
             durability = \"none\"\nguard = true\n[store]\nsecret_access_key = \"${SECRET}\"\nallow_http = true\n",
        )
        .with(
            "inputs/lines.toml",
            "description = \"Lines.\"\n\
             dedup_key = \"no\"\n\
             bronze = false\n\
             null = \"NA\"\n\
             retention = { column = \"at\", keep = \"3 years\" }\n\
             [columns]\n\
             no = { type = \"VARCHAR\", from = [\"No\", \"No \"], nullable = false, null = [] }\n\
             at = { type = \"TIMESTAMP\", format = [\"%Y-%m-%d\", \"%d.%m.%Y\"] }\n\
             country = \"VARCHAR\"\n\
             tags = { type = \"decimal(4, 2)[]\" }\n\
             [[feeds]]\n\
             name = \"drops\"\n\
             kind = \"files\"\n\
             path = \"drops/*.csv.gz\"\n\
             format = \"csv\"\n\
             null = [\"-\"]\n\
             columns.country = { from = \"Land\", null = \"??\" }\n\
             columns.at.format = \"%Y%m%d\"\n\
             [[feeds]]\n\
             name = \"made-up\"\n\
             kind = \"generate\"\n\
             generator = \"retail.order_lines\"\n\
             rate = \"${RATE}\"\n\
             limit = 1_000\n\
             seed = 0x2a\n\
             partitions = 4\n\
             late = 0.25\n\
             broken = 0.5\n",
        )
        .with("silver/lines.sql", "SELECT * FROM lines")
        .with(
            "silver/lines.toml",
            "key = [\"no\"]\npartition_by = \"day\"\ndeletes = \"rewrite\"\nchange_data_feed = true\n\
             retention = { column = \"at\", keep = \"1h\" }\n\
             [expect.b]\ncheck = \"x > 0\"\non_violation = \"fail\"\n[expect.a]\ncheck = \"y\"\n",
        )
}

#[test]
fn a_damaged_file_never_panics_and_never_fails_without_a_word() {
    let good = rich();
    let scratch = good.write();
    let mut refused = 0;
    for (path, text) in &good.0 {
        let cuts = (0..text.len()).step_by(3).map(|at| text[..at].to_string());
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let without = (0..lines.len()).map(|n| [&lines[..n], &lines[n + 1..]].concat().concat());
        let twice = (0..lines.len()).map(|n| [&lines[..n], &lines[n..=n], &lines[n..]].concat().concat());
        let junk = text.char_indices().step_by(7).flat_map(|(at, c)| {
            ["\"", "=", "[", "]", "{", "\n", "${"]
                .map(|junk| format!("{}{junk}{}", &text[..at], &text[at + c.len_utf8()..]))
        });
        for damaged in cuts.chain(without).chain(twice).chain(junk) {
            std::fs::write(scratch.path().join(path), &damaged).expect("the file is writable");
            if let Err(found) = load(scratch.path(), &env) {
                refused += 1;
                assert!(!found.0.is_empty(), "{path} was refused without a word:\n{damaged}");
            }
        }
        std::fs::write(scratch.path().join(path), text).expect("the file is writable");
    }
    assert!(refused > 500, "only {refused} damaged files were refused");
}

#[test]
fn a_rich_definition_loads_with_all_it_says() {
    let folder = rich();
    let scratch = folder.write();
    let base = scratch.path().canonicalize().expect("the folder is there");
    let dataflow = load(scratch.path(), &env).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(
        (dataflow.lake.as_str(), dataflow.durable, dataflow.guard),
        ("s3://bucket/retail", false, true)
    );
    assert_eq!(
        (dataflow.epoch, dataflow.commit),
        (Duration::from_millis(5), Duration::from_millis(25))
    );
    assert_eq!(dataflow.store_options["secret_access_key"], "hunter2");
    assert_eq!(dataflow.store_options["allow_http"], "true");
    let debug = format!("{dataflow:?}");
    assert!(
        !debug.contains("hunter2") && debug.contains("secret_access_key"),
        "{debug}"
    );

    let input = &dataflow.inputs[0];
    assert_eq!(input.description.as_deref(), Some("Lines."));
    assert_eq!(
        (input.dedup_key.as_slice(), input.bronze),
        (["no".to_string()].as_slice(), false)
    );
    let keep = Duration::from_secs(3 * 31_557_600);
    assert_eq!(
        input.retention,
        Some(Retention {
            column: "at".to_string(),
            keep
        })
    );
    let column = |name: &str, sql_type: &str, nullable, from: &[&str], format: &[&str], null: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        Column {
            name: name.to_string(),
            sql_type: sql_type.parse().expect("a type"),
            nullable,
            from: owned(from),
            format: owned(format),
            null: owned(null),
        }
    };
    assert_eq!(
        input.columns,
        [
            column("no", "VARCHAR", false, &["No", "No "], &[], &[]),
            column("at", "TIMESTAMP", true, &["at"], &["%Y-%m-%d", "%d.%m.%Y"], &["NA"]),
            column("country", "VARCHAR", true, &["country"], &[], &["NA"]),
            column("tags", "DECIMAL(4,2)[]", true, &["tags"], &[], &["NA"]),
        ]
    );
    let [drops, made_up] = input.feeds.as_slice() else {
        panic!("two feeds: {:?}", input.feeds)
    };
    assert!(
        matches!(&drops.kind, FeedKind::Files(FileFeed { path, .. }) if Path::new(path) == base.join("drops/*.csv.gz")),
        "{drops:?}"
    );
    assert_eq!(
        drops.columns,
        [
            column("no", "VARCHAR", false, &["No", "No "], &[], &["-"]),
            column("at", "TIMESTAMP", true, &["at"], &["%Y%m%d"], &["-"]),
            column("country", "VARCHAR", true, &["Land"], &[], &["??"]),
            column("tags", "DECIMAL(4,2)[]", true, &["tags"], &[], &["-"]),
        ]
    );
    assert_eq!((made_up.name.as_str(), made_up.format), ("made-up", Format::Json));
    let FeedKind::Generate(generate) = &made_up.kind else {
        panic!("a generator: {made_up:?}")
    };
    assert_eq!(
        generate,
        &Generate {
            generator: "retail.order_lines".to_string(),
            rate: Some(250.5),
            limit: Some(1000),
            seed: 42,
            partitions: 4,
            updates: 0.0,
            deletes: 0.0,
            duplicates: 0.0,
            late: 0.25,
            broken: 0.5,
        }
    );

    let table = &dataflow.tables[0];
    assert_eq!(table.qualified_name(), "silver.lines");
    assert_eq!(table.settings_file.as_deref(), Some(Path::new("silver/lines.toml")));
    assert_eq!(
        (table.key.as_slice(), table.partition_by.as_slice()),
        (["no".into()].as_slice(), ["day".into()].as_slice())
    );
    assert_eq!((table.deletes, table.change_data_feed), (Deletes::Rewrite, true));
    assert_eq!(
        table.retention.as_ref().map(|r| r.keep),
        Some(Duration::from_secs(3600))
    );
    let expectations: Vec<(&str, &str, OnViolation)> = table
        .expectations
        .iter()
        .map(|e| (e.name.as_str(), e.check.as_str(), e.on_violation))
        .collect();
    assert_eq!(
        expectations,
        [("b", "x > 0", OnViolation::Fail), ("a", "y", OnViolation::Warn)]
    );
}

#[test]
fn tables_stand_behind_the_tables_they_read() {
    let dataflow = loaded(
        &Folder::good()
            .with("gold/a.sql", "SELECT * FROM Gold.Z JOIN silver.\"orders\" ON true")
            .with(
                "gold/z.sql",
                "SELECT * FROM TABLE(TUMBLE(TABLE silver.late, DESCRIPTOR(at), INTERVAL '1' DAY))",
            )
            .with("silver/late.sql", "SELECT * FROM silver.orders -- not gold.a"),
    );
    let names: Vec<String> = dataflow.tables.iter().map(Table::qualified_name).collect();
    assert_eq!(names, ["silver.orders", "silver.late", "gold.z", "gold.a"]);
}

#[test]
fn a_column_of_an_alias_called_gold_is_no_table() {
    let dataflow = loaded(&Folder::good().with("silver/medals.sql", "SELECT gold.id FROM orders AS gold"));
    assert_eq!(dataflow.tables.len(), 2);
}

/// A feed that reads topics, and tables that are written to some.
fn of_topics(feed: &str) -> Folder {
    let input = format!(
        "key = [\"id\"]\n[columns]\nid = \"BIGINT\"\n[[feeds]]\nname = \"live\"\nkind = \"kafka\"\n\
         brokers = \"one:9092, two:9092\"\ntopics = [\"shop.orders\", \"^shop\\\\.late\\\\..*\"]\nformat = \"debezium-json\"\n{feed}"
    );
    Folder::good().with(INPUT, &input)
}

fn kafka_of(folder: &Folder) -> Kafka {
    match loaded(folder).inputs.remove(0).feeds.remove(0).kind {
        FeedKind::Kafka(kafka) => kafka,
        other => panic!("{other:?}"),
    }
}

#[test]
fn topics_load_with_all_they_say_and_their_secrets_never_print() {
    let plain = kafka_of(&of_topics(""));
    assert_eq!(plain.topics, ["shop.orders", "^shop\\.late\\..*"]);
    assert_eq!((plain.start, plain.on_missing), (KafkaStart::Earliest, OnMissing::Stop));
    assert!(plain.transactions.is_none() && plain.group.is_none());
    let folder = of_topics(
        "start = { \"shop.orders-0\" = 120 }\non_missing = \"earliest\"\ngroup = \"readers\"\n\
         transactions = { topic = \"shop.transaction\", wait = \"5s\" }\n\
         [feeds.options]\n\"sasl.password\" = \"${SECRET}\"\n\"socket.keepalive.enable\" = true\n",
    );
    let rich = kafka_of(&folder);
    assert_eq!(
        rich.start,
        KafkaStart::Offsets(BTreeMap::from([("shop.orders-0".into(), 120)]))
    );
    assert_eq!(
        (rich.on_missing, rich.group.as_deref()),
        (OnMissing::Earliest, Some("readers"))
    );
    let transactions = TransactionSettings {
        topic: "shop.transaction".into(),
        wait: Duration::from_secs(5),
    };
    assert_eq!(rich.transactions, Some(transactions));
    assert_eq!(rich.client.options.0["sasl.password"], "hunter2");
    assert_eq!(rich.client.options.0["socket.keepalive.enable"], "true");
    let debug = format!("{:?}", loaded(&folder));
    assert!(!debug.contains("hunter2") && debug.contains("sasl.password"), "{debug}");
    let of_time = kafka_of(&of_topics("start = \"2026-11-01T00:00:00Z\"\n"));
    assert_eq!(of_time.start, KafkaStart::Time(1_793_491_200_000));
}

#[test]
fn a_table_goes_to_a_topic_by_its_key_and_dead_letters_as_they_came() {
    let to = "brokers = \"one:9092\"\ntopic = \"shop.out\"\noptions = { \"ssl.key.password\" = \"${SECRET}\" }\n";
    let folder = Folder::good()
        .with("silver/orders.toml", &format!("key = [\"id\"]\n[kafka]\n{to}"))
        .with(
            "dataflow.toml",
            &format!(
                "name = \"shop\"\n[dead_letters]\n{}",
                to.replace("shop.out", "shop.dead")
            ),
        );
    let dataflow = loaded(&folder);
    let output = dataflow.tables[0].output.as_ref().expect("a topic");
    assert_eq!(
        (output.topic.as_str(), output.key.as_slice()),
        ("shop.out", ["id".to_string()].as_slice())
    );
    let letters = dataflow.dead_letters.as_ref().expect("a topic");
    assert!(letters.key.is_empty() && letters.client.brokers == "one:9092");
    assert_eq!(
        (&output.format, &letters.format),
        (&TopicFormat::Json, &TopicFormat::AsItCame)
    );
    let of_avro = "format = \"avro\"\nregistry = { url = \"http://own:8081\", token = \"${SECRET}\" }\n";
    let folder = folder.with("silver/orders.toml", &format!("key = [\"id\"]\n[kafka]\n{to}{of_avro}"));
    let avro = loaded(&folder);
    let TopicFormat::Avro(registry) = &avro.tables[0].output.as_ref().expect("a topic").format else {
        panic!("{avro:?}")
    };
    assert_eq!(registry.urls[0].host_str(), Some("own"));
    assert!(!format!("{avro:?}").contains("hunter2"));
    assert!(!format!("{dataflow:?}").contains("hunter2"));
}
