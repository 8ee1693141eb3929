use super::*;

const HEADER: &str = "\u{feff}id,Name,amount,at,extra\r\n";

fn things() -> Vec<Col> {
    vec![
        col("id", "BIGINT").required(),
        col("name", "VARCHAR").from(&["Name", "Name "]),
        col("amount", "DECIMAL(10,2)").null(&["NA"]),
        col("at", "TIMESTAMP").format(&["%Y-%m-%d %H:%M:%S", "%m/%d/%y %H:%M"]),
        col("note", "VARCHAR"),
    ]
}

#[test]
fn quotes_blanks_and_both_date_formats_are_read() {
    let decoded = decoder(Format::Csv, &[], things()).decode(raw(
        Some(HEADER),
        &[
            "1,\"a \"\"b\"\", c\",1.50,2017-01-01 00:21:07,x\r\n",
            "2, d ,NA,1/1/17 0:21,x",
            "3,\"\",,,x\n",
            "",
            "4,\"two\nlines\",1e2,2017-01-01 00:21:07,\"x\"",
        ],
    ));
    assert_eq!(
        rows(&decoded),
        [
            "0+ 1|a \"b\", c|1.50|2017-01-01T00:21:07|-",
            "1+ 2| d |-|2017-01-01T00:21:00|-",
            "2+ 3||-|-|-",
            "4+ 4|two\nlines|100.00|2017-01-01T00:21:07|-",
        ]
    );
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    assert_eq!(
        decoded.ignored_fields,
        [("extra".to_string(), 4), ("(blank line)".to_string(), 1)]
    );
}

#[test]
fn each_broken_record_is_refused_alone_with_column_value_type_and_remedy() {
    let long = "9".repeat(200);
    let records: Vec<Vec<u8>> = vec![
        b"1,a,1,,x".to_vec(),
        b"nine,a,1,,x".to_vec(),
        format!("{long},a,1,,x").into_bytes(),
        b"9223372036854775808,a,1,,x".to_vec(),
        b"2,a,1.005,,x".to_vec(),
        b"3,a,1,yesterday,x".to_vec(),
        b"4,\"a,1,,x".to_vec(),
        b"5,\"a\"b,1,,x".to_vec(),
        b"6,\xff,1,,x".to_vec(),
        b",a,1,,x".to_vec(),
        b"7,a,1".to_vec(),
        b"8,a,1,,x,y".to_vec(),
        b"9,a,123456789,,x".to_vec(),
        b"10,a,1,,x".to_vec(),
    ];
    let decoded = decoder(Format::Csv, &[], things()).decode(raw(Some(HEADER), &records));
    assert_eq!(rows(&decoded), ["0+ 1|a|1.00|-|-", "13+ 10|a|1.00|-|-"]);
    let reasons = rejects(&decoded);
    let expected = [
        (1, "column \"id\": \"nine\" is not a BIGINT; correct"),
        (2, "999\"... does not fit into BIGINT; declare a wider type"),
        (3, "\"9223372036854775808\" does not fit into BIGINT"),
        (
            4,
            "column \"amount\": \"1.005\" has more digits behind the point than DECIMAL(10,2) holds",
        ),
        (5, "column \"at\": \"yesterday\" is not a TIMESTAMP; add its pattern"),
        (6, "a quoted field does not end"),
        (7, "goes on behind its closing quote"),
        (8, "not UTF-8 from byte 2"),
        (9, "column \"id\" is required but the record has no value for it"),
        (10, "the record has 3 fields, the header 5"),
        (11, "the record has 6 fields, the header 5; quote fields"),
        (12, "column \"amount\": \"123456789\" does not fit into DECIMAL(10,2)"),
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:#?}");
    for (reason, (record, part)) in reasons.iter().zip(expected) {
        assert!(
            reason.starts_with(&format!("{record}: ")) && reason.contains(part),
            "{reason} lacks {part}"
        );
        assert!(reason.len() < 300, "{reason}");
    }
}

#[test]
fn a_header_may_drift_between_batches() {
    let mut decoder = decoder(Format::Csv, &[], things());
    let first = decoder.decode(raw(Some("Name ,id\n"), &["a,1"]));
    assert_eq!(rows(&first), ["0+ 1|a|-|-|-"]);
    let second = decoder.decode(raw(Some("\"id\",note,Name,Name "), &["1,n,a,b"]));
    assert_eq!(rows(&second), ["0+ 1|a|-|-|n"]);
    assert_eq!(second.ignored_fields, [("Name ".to_string(), 1)]);
    let third = decoder.decode(raw(Some("Id,Name"), &["1,a", "2,b"]));
    assert_eq!(rows(&third), Vec::<String>::new());
    assert_eq!(third.rejects.len(), 2);
    assert!(
        third.rejects[0]
            .reason
            .contains("column \"id\" is required, but the header has no \"id\": it has \"Id,Name\"")
    );
    let none = decoder.decode(raw(None, &["1,a"]));
    assert!(none.rejects[0].reason.contains("no header line"));
}

#[test]
fn every_type_is_read_from_text() {
    let columns = vec![
        col("b", "BOOLEAN"),
        col("i", "INT"),
        col("d", "DOUBLE"),
        col("x", "BINARY"),
        col("y", "BINARY").format(&["utf8"]),
        col("t", "DATE"),
        col("e", "TIMESTAMP").format(&["epoch_ms"]),
        col("l", "BIGINT[]"),
    ];
    let decoded = decoder(Format::Csv, &[], columns).decode(raw(
        Some("b,i,d,x,y,t,e,l"),
        &[
            "T,-1,inf,AQI=,ab,2011-12-09,1500,\"[1, 2,null]\"",
            "0,17850.0,-1.5e-3,\\x0102,\"\",2011-12-09T00:00:00Z,-1,[]",
            "no,2147483648,nan,!,,2011-12-09 01:00,1.5,[x]",
        ],
    ));
    assert_eq!(
        rows(&decoded),
        [
            "0+ true|-1|inf|0102|6162|2011-12-09|1970-01-01T00:00:01.500|[1, 2, ]",
            "1+ false|17850|-0.0015|0102||2011-12-09|1969-12-31T23:59:59.999|[]",
        ]
    );
    assert!(
        decoded.rejects[0].reason.contains("does not fit into INT"),
        "{:?}",
        decoded.rejects
    );
}

#[test]
fn formats_that_do_not_fit_the_column_are_refused_at_the_start() {
    for (sql_type, format) in [
        ("TIMESTAMP", "%Q"),
        ("VARCHAR", "%Y"),
        ("BINARY", "base32"),
        ("DECIMAL(4,2)", "hex"),
    ] {
        let input = input(Format::Csv, &[], vec![col("a", sql_type).format(&[format])]);
        let error = super::super::Decoder::new(&input, &input.feeds[0], &Registries::new(None))
            .unwrap_err()
            .to_string();
        assert!(error.contains("column \"a\"") && error.contains(format), "{error}");
    }
}
