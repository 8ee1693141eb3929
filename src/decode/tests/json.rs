use super::*;

fn things() -> Vec<Col> {
    vec![
        col("id", "BIGINT").required(),
        col("name", "VARCHAR").from(&["name", "who.name"]),
        col("amount", "DECIMAL(18,3)"),
        col("at", "TIMESTAMP"),
        col("tags", "VARCHAR[]"),
        col("who", "VARCHAR"),
    ]
}

#[test]
fn paths_nested_text_arrays_and_zones_are_read() {
    let decoded = decoder(Format::Ndjson, &[], things()).decode(raw(
        None,
        &[
            "\u{feff}{\"id\":1,\"name\":\"a\\u00e9\\n\",\"amount\":9747747.934,\"at\":\"2011-12-09T12:50:00+02:00\",\"tags\":[\"x\",null,\"\\\"\"]}\r\n",
            r#" {"who": {"name":"b", "age":7}, "id":"2", "amount":"-0.5", "more":{"x":[1]}, "more2":0} "#,
            r#"{"id":3,"id":4,"name":null,"who":{"name":"c"}}"#,
            r#"{"id":5,"name":12.50,"who":true,"tags":"[\"s\"]"}"#,
        ],
    ));
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    assert_eq!(
        rows(&decoded),
        [
            "0+ 1|aé\n|9747747.934|2011-12-09T10:50:00|[x, , \"]|-",
            r#"1+ 2|b|-0.500|-|-|{"name":"b", "age":7}"#,
            r#"2+ 4|-|-|-|-|{"name":"c"}"#,
            "3+ 5|12.50|-|-|[s]|true",
        ]
    );
    assert_eq!(
        decoded.ignored_fields,
        [
            ("more".to_string(), 1),
            ("more2".to_string(), 1),
            ("who.age".to_string(), 1)
        ]
    );
}

#[test]
fn what_is_no_object_or_does_not_fit_is_refused_alone() {
    let records: &[&[u8]] = &[
        b"{\"id\":1}",
        b"{\"id\":1",
        b"[1]",
        b"{\"id\":1}{\"id\":2}",
        b"{\"id\":",
        b" \r\n",
        b"{\"id\":18446744073709551616}",
        b"{\"id\":1.5}",
        b"{\"name\":\"x\"}",
        b"{\"id\":null}",
        b"{\"id\":1,\"name\":\"\xff\"}",
        b"{\"id\":1,\"at\":1500000000000}",
        b"{\"id\":1,\"name\":\"\\ud800\"}",
        b"{\"id\":1,\"tags\":{}}",
        b"{\"id\":{}}",
        b"{\"id\":2}",
    ];
    let decoded = decoder(Format::Json, &[], things()).decode(raw(None, records));
    assert_eq!(rows(&decoded), ["0+ 1|-|-|-|-|-", "15+ 2|-|-|-|-|-"]);
    let expected = [
        "at byte 7",
        "it is not an object",
        "expected the end of the record at byte 8",
        "it ends too early",
        "\"18446744073709551616\" does not fit into BIGINT",
        "is no whole number, which BIGINT holds",
        "column \"id\" is required, but the record has no field \"id\"",
        "column \"id\" is required but the record has no value",
        "not UTF-8",
        "epoch_ms",
        "escape that stands for no character",
        "is no JSON array",
        "\"{}\" is not a BIGINT",
    ];
    assert_eq!(decoded.ignored_fields, [("(blank line)".to_string(), 1)]);
    let reasons = rejects(&decoded);
    assert_eq!(reasons.len(), expected.len(), "{reasons:#?}");
    for (reason, part) in reasons.iter().zip(expected) {
        assert!(reason.contains(part), "{reason} lacks {part}");
    }
}

#[test]
fn a_null_record_deletes_its_key() {
    let mut keyed_by_id = decoder(Format::Json, &["id"], things());
    let decoded = keyed_by_id.decode(keyed(
        None,
        &[
            (Some(b"{\"id\":1}"), None),
            (Some(b"2"), None),
            (Some(b"{\"schema\":{},\"payload\":{\"id\":3}}"), None),
            (Some(b"x"), None),
            (None, None),
            (Some(b"{\"other\":1}"), None),
        ],
    ));
    assert_eq!(rows(&decoded), ["0- 1|-|-|-|-|-", "1- 2|-|-|-|-|-", "2- 3|-|-|-|-|-"]);
    assert_eq!(decoded.rejects.len(), 3, "{:?}", decoded.rejects);
    let unkeyed = decoder(Format::Json, &[], things()).decode(keyed(None, &[(Some(b"1"), None)]));
    assert!(unkeyed.rejects[0].reason.contains("the input has no key"));
}

#[test]
fn epochs_are_read_in_the_unit_the_format_names() {
    let columns = vec![
        col("s", "TIMESTAMP").format(&["epoch_s"]),
        col("ms", "TIMESTAMP").format(&["epoch_ms"]),
        col("us", "TIMESTAMP").format(&["epoch_us"]),
        col("ns", "TIMESTAMP").format(&["epoch_ns"]),
        col("day", "DATE").format(&["epoch_days"]),
    ];
    let record = r#"{"s":-1.5,"ms":"1500","us":1,"ns":-1,"day":15000}"#;
    let decoded = decoder(Format::Json, &[], columns).decode(raw(None, &[record]));
    assert_eq!(
        rows(&decoded),
        [
            "0+ 1969-12-31T23:59:58.500|1970-01-01T00:00:01.500|1970-01-01T00:00:00.000001|1969-12-31T23:59:59.999999|2011-01-26"
        ]
    );
}

#[test]
fn endless_new_field_names_are_counted_together() {
    let records: Vec<String> = (0..3000).map(|n| format!("{{\"id\":1,\"f{n}\":0}}")).collect();
    let mut decoder = decoder(Format::Json, &[], things());
    let decoded = decoder.decode(raw(None, &records));
    assert_eq!(decoded.ignored_fields.len(), 1001);
    assert_eq!(decoded.ignored_fields.iter().map(|(_, n)| n).sum::<u64>(), 3000);
    let again = decoder.decode(raw(None, &["{\"id\":1,\"late\":0}"]));
    assert_eq!(again.ignored_fields, [("late".to_string(), 1)]);
}

/// A log takes the content of a record's only field `value` for the record; the dead letter only said that it is no
/// object.
#[test]
fn the_letter_of_a_value_that_is_no_object_says_how_a_log_takes_a_field_of_that_name() {
    let decoded = decoder(Format::Json, &[], things()).decode(raw(None, &[&b"20.5"[..], b"{"]));
    let reasons = rejects(&decoded);
    assert!(
        reasons[0].contains("written as {\"value\": {\"value\": ...}}"),
        "{reasons:#?}"
    );
    assert!(!reasons[1].contains("written as"), "{reasons:#?}");
}
