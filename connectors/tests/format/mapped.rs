//! Foreign JSON and CSV, read through a mapping.

use whisperer_connectors::{
    format::{
        EventReader, Format, FormatOptions, Mapping, Reason,
        mapping::{Constant, From, Member, TimeUnit},
    },
    source::Payload,
};

use crate::support::{any_options, json, member, read};

fn mapped(mapping: Mapping) -> FormatOptions {
    FormatOptions { format: Format::Foreign(mapping), ..any_options() }
}

fn retail() -> Mapping {
    let purchase = Constant::Text("purchase".into());
    Mapping {
        user_id: Some(From::Member(member("CustomerID"))),
        event_type: Some(From::Value(purchase)),
        timestamp: Some(From::Member(Member { format: Some("%Y-%m-%d %H:%M:%S".into()), ..member("InvoiceDate") })),
        properties: vec![
            ("feature".into(), From::Member(member("StockCode"))),
            ("amount".into(), From::Member(member("Quantity"))),
        ],
        ..Mapping::default()
    }
}

#[test]
fn foreign_records_are_mapped() {
    // Goal: the retail data's own shape; a line without its customer misses a field.
    let line = r#"{"InvoiceNo": "536365", "StockCode": "85123A", "Quantity": 6, "InvoiceDate": "2010-12-01 08:26:00", "UnitPrice": 2.55, "CustomerID": "17850", "properties": "no matter"}"#;
    let expected = "3:77 job 17850 - purchase 2010-12-01T08:26:00Z | \"85123A\" 6 - - -";
    assert_eq!(json(mapped(retail()), line), Ok(Some(expected.into())));
    assert_eq!(json(mapped(retail()), &line.replace("\"17850\"", "17850")), Ok(Some(expected.into())));
    assert_eq!(json(mapped(retail()), &line.replace("CustomerID", "Customer")), Err(Reason::MissingField));
    assert_eq!(json(mapped(retail()), &line.replace("08:26:00", "08:26")), Err(Reason::BadTime));
    assert_eq!(json(mapped(retail()), &line.replace("-12-01", "-13-01")), Err(Reason::BadTime));
}

#[test]
fn csv_rows_are_mapped_like_objects() {
    // Goal: columns are members, dots in their names included; empty cells are null; wrong rows are invalid.
    let row = |options: FormatOptions, header: &[&str], cells: &[&str]| {
        let text = cells.join(",");
        let (header, cells) = (csv::ByteRecord::from(header.to_vec()), csv::ByteRecord::from(cells.to_vec()));
        read(options, Payload::Csv { header: &header, cells: &cells, raw: text.as_bytes() })
    };
    let header = ["CustomerID", "InvoiceDate", "Quantity", "StockCode", "context.os"];
    let good = ["17850", "2010-12-01 08:26:00", "6", "85123A", "Linux"];
    let expected = "3:77 job 17850 - purchase 2010-12-01T08:26:00Z | cell 85123A cell 6 - cell Linux -";
    assert_eq!(row(mapped(retail()), &header, &good), Ok(Some(expected.into())));
    assert_eq!(row(mapped(retail()), &header, &["", good[1], good[2], good[3], good[4]]), Err(Reason::MissingField));
    assert_eq!(row(mapped(retail()), &header, &good[..4]), Err(Reason::InvalidJson));
    assert_eq!(row(mapped(retail()), &header, &[" "]), Ok(None));

    let native = ["user_id", "app_id", "event_type", "timestamp", "properties.amount", "context"];
    let cells = ["u", "a", "e", "2024-05-01T12:00:00Z", "3", "text"];
    let expected = "3:77 a u - e 2024-05-01T12:00:00Z | - cell 3 - - -";
    assert_eq!(row(any_options(), &native, &cells), Ok(Some(expected.into())));

    let (header, cells) = (csv::ByteRecord::from(vec!["a"]), csv::ByteRecord::from(vec![b"\xff".as_slice()]));
    let payload = Payload::Csv { header: &header, cells: &cells, raw: b"\xff" };
    assert_eq!(read(any_options(), payload), Err(Reason::InvalidJson));
}

#[test]
fn mapped_values_are_renamed() {
    // Goal: exact matches on the value's text; without one `otherwise`, else the value; what is missing stays missing.
    let rename =
        vec![("Next".into(), "feature_used".into()), ("1".into(), "one".into()), ("true".into(), "yes".into())];
    let page = |otherwise: Option<&str>| Mapping {
        event_type: Some(From::Member(Member {
            rename: rename.clone(),
            otherwise: otherwise.map(str::to_owned),
            ..member("a.page")
        })),
        ..Mapping::default()
    };
    let kind = |otherwise, value: &str| {
        let line = format!(r#"{{"user_id":"u","timestamp":"2024-05-01T12:00:00Z","a":{{"page":{value}}}}}"#);
        json(mapped(page(otherwise)), &line).map(|event| event.unwrap().split(' ').nth(4).unwrap().to_owned())
    };
    assert_eq!(kind(None, "\"Next\""), Ok("feature_used".into()));
    assert_eq!(kind(None, "\"next\""), Ok("next".into()));
    assert_eq!(kind(Some("rest"), "\"next\""), Ok("rest".into()));
    assert_eq!((kind(None, "1"), kind(None, "true")), (Ok("one".into()), Ok("yes".into())));
    assert_eq!((kind(None, "2"), kind(Some("rest"), "[]")), (Err(Reason::Schema), Ok("rest".into())));
    assert_eq!(kind(Some("rest"), "null"), Err(Reason::MissingField));
}

#[test]
fn only_mapped_properties_exist() {
    // Goal: `properties` of the record are not those of the event; context and metadata come from their own members.
    let mapping = Mapping { properties: vec![("deep".into(), From::Member(member("x.y")))], ..Mapping::default() };
    let line = r#"{"app_id":"a","user_id":"u","event_type":"e","timestamp":"2024-05-01T12:00:00Z","properties":{"feature":"f"},"x":{"y":{"er":1}},"context":{"os":"o"},"metadata":{"batch_id":2}}"#;
    assert_eq!(
        json(mapped(mapping.clone()), line),
        Ok(Some("3:77 a u - e 2024-05-01T12:00:00Z | - - 1 \"o\" 2".into()))
    );
    assert_eq!(json(mapped(mapping), &line.replace("{\"os\":\"o\"}", "3")), Err(Reason::Schema));
}

#[test]
fn constants_and_app_ids() {
    // Goal: a constant is a value like another; an `app_id` of the record goes before the job's name, a mapped one has no substitute.
    let mapping = Mapping {
        user_id: Some(From::Value(Constant::Number(5.0))),
        event_type: Some(From::Value(Constant::Text("e".into()))),
        properties: vec![
            ("amount".into(), From::Value(Constant::Number(0.5))),
            ("feature".into(), From::Value(Constant::Bool(true))),
        ],
        ..Mapping::default()
    };
    let time = r#""timestamp":"2024-05-01T12:00:00Z""#;
    let expected = |app: &str| Ok(Some(format!("3:77 {app} 5 - e 2024-05-01T12:00:00Z | true 0.5 - - -")));
    assert_eq!(json(mapped(mapping.clone()), &format!("{{{time}}}")), expected("job"));
    assert_eq!(json(mapped(mapping.clone()), &format!("{{\"app_id\":\"own\",{time}}}")), expected("own"));
    let mapping = Mapping { app_id: Some(From::Member(member("tenant"))), ..mapping };
    assert_eq!(json(mapped(mapping), &format!("{{\"app_id\":\"own\",{time}}}")), Err(Reason::MissingField));
}

#[test]
fn mapped_times_have_formats_units_and_zones() {
    // Goal: every way to write a time, exact to the microsecond and cut there; what is out of range is no time.
    let read = |time: Member, value: &str| {
        let mapping =
            Mapping { timestamp: Some(From::Member(Member { path: vec!["t".into()], ..time })), ..Mapping::default() };
        let line = format!(r#"{{"user_id":"u","event_type":"e","t":{value}}}"#);
        json(mapped(mapping), &line).map(|event| event.unwrap().split(' ').nth(5).unwrap().to_owned())
    };
    let unit = |unit| Member { unit: Some(unit), ..Member::default() };
    let format = |letters: &str, zone: Option<&str>| Member {
        format: Some(letters.into()),
        zone: zone.map(str::to_owned),
        ..Member::default()
    };
    let good = [
        (unit(TimeUnit::Seconds), "1285321830", "2010-09-24T09:50:30Z"),
        (unit(TimeUnit::Seconds), "1285321830.1234567", "2010-09-24T09:50:30.123456Z"),
        (unit(TimeUnit::Seconds), "1.285321830e9", "2010-09-24T09:50:30Z"),
        (unit(TimeUnit::Seconds), "-0.5", "1969-12-31T23:59:59.500000Z"),
        (unit(TimeUnit::Millis), "1285321830123.45", "2010-09-24T09:50:30.123450Z"),
        (unit(TimeUnit::Micros), "1285321830123456", "2010-09-24T09:50:30.123456Z"),
        (unit(TimeUnit::Nanos), "1285321830123456789", "2010-09-24T09:50:30.123456Z"),
        (unit(TimeUnit::Nanos), "-1", "1969-12-31T23:59:59.999999Z"),
        (unit(TimeUnit::Seconds), "\"2010-09-24T09:50:30Z\"", "2010-09-24T09:50:30Z"),
        (format("%Y-%m-%d %H:%M:%S", None), "\"2010-12-01 08:26:00\"", "2010-12-01T08:26:00Z"),
        (format("%Y-%m-%d %H:%M:%S", Some("Europe/London")), "\"2011-07-01 08:26:00\"", "2011-07-01T07:26:00Z"),
        (format("%d/%b/%Y:%H:%M:%S %z", Some("Asia/Tokyo")), "\"10/Oct/2000:13:55:36 -0700\"", "2000-10-10T20:55:36Z"),
        (format("%Y%m%d", None), "\"20101201\"", "2010-12-01T00:00:00Z"),
        (format("%s", None), "\"1285321830\"", "2010-09-24T09:50:30Z"),
        (
            Member { zone: Some("Asia/Tokyo".into()), ..Member::default() },
            "\"2010-12-01 08:26:00.25\"",
            "2010-11-30T23:26:00.250000Z",
        ),
        (
            Member { zone: Some("Asia/Tokyo".into()), ..Member::default() },
            "\"2010-12-01T08:26:00Z\"",
            "2010-12-01T08:26:00Z",
        ),
    ];
    for (member, value, expected) in good {
        assert_eq!(read(member, value), Ok(expected.to_owned()), "{value}");
    }
    let bad = [
        (unit(TimeUnit::Seconds), "1e300"),
        (unit(TimeUnit::Seconds), "253402300800"),
        (unit(TimeUnit::Micros), "-9223372036854775808"),
        (unit(TimeUnit::Seconds), "\"1285321830\""),
        (format("%Y-%m-%d %H:%M:%S", None), "\"2010-12-01T08:26:00Z\""),
        (format("%Y", None), "\"2010\""),
        (format("%Y-%m-%d", None), "20101201"),
    ];
    for (member, value) in bad {
        assert_eq!(read(member, value), Err(Reason::BadTime), "{value}");
    }
    for wrong in [format("%Y-%!", None), format("%Y-%m-%d", Some("Mars/Olympus"))] {
        let mapping = Mapping { timestamp: Some(From::Member(wrong)), ..Mapping::default() };
        assert!(EventReader::new(mapped(mapping), &[]).is_err());
    }
}

#[test]
fn a_cell_with_a_unit_is_a_number() {
    // Goal: CSV has no JSON numbers, so the cell's text decides; other texts are read as times.
    let time = Member { unit: Some(TimeUnit::Millis), ..member("t") };
    let mapping = Mapping { timestamp: Some(From::Member(time)), ..Mapping::default() };
    for (cell, expected) in [
        ("1500", Some("1970-01-01T00:00:01.500000Z")),
        ("1970-01-01T00:00:01.5Z", Some("1970-01-01T00:00:01.500000Z")),
        ("1e3", None),
    ] {
        let header = csv::ByteRecord::from(vec!["user_id", "event_type", "t"]);
        let cells = csv::ByteRecord::from(vec!["u", "e", cell]);
        let payload = Payload::Csv { header: &header, cells: &cells, raw: b"u,e,t" };
        let time = read(mapped(mapping.clone()), payload)
            .ok()
            .map(|event| event.unwrap().split(' ').nth(5).unwrap().to_owned());
        assert_eq!(time.as_deref(), expected, "{cell}");
    }
}
