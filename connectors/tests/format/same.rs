//! The formats agree: one event, written in each of them, is one and the same event.

use apache_avro::{Schema, types::Value as Avro, writer::datum::GenericDatumWriter};
use proptest::prelude::*;
use protox::{
    Compiler,
    file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver},
    prost::Message,
    prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, Value as Proto},
};
use serde_json::{Map, Value, json};
use whisperer_connectors::{
    RawRecord,
    format::{Encoding, EventReader, Format, FormatOptions, Mapping},
    source::Payload,
};
use whisperer_schemas::time::{Micros, format_micros};

use crate::{
    registry::{frame, stand_in::StandIn},
    support::{Outcome, fields, options, outcome, raw, shown},
};

/// An event with the fields that the readers are asked for.
#[derive(Clone, Debug)]
struct Event {
    id: Option<String>,
    user: String,
    session: Option<String>,
    kind: String,
    time: Micros,
    received: Option<Micros>,
    feature: Option<String>,
    amount: Option<f64>,
    deep: Option<bool>,
    os: Option<String>,
    batch: Option<String>,
}

fn id(prefix: &'static str) -> impl Strategy<Value = String> {
    "[a-zA-Z0-9]{15,16}".prop_map(move |letters| format!("{prefix}{letters}"))
}

fn events() -> impl Strategy<Value = Event> {
    // Microseconds from 1970 to 2100; ingest times near them, so that some are clamped and some in the future.
    let time = 0..4_102_444_800_000_000_i64;
    let kind = prop::sample::select(vec!["feature_used", "page_viewed", "user_login", "own_type", "unknown_type"]);
    let ids = (prop::option::of(id("evt_")), id("usr_"), prop::option::of(id("ses_")), kind);
    let times = (time, prop::option::of(-7_200_000_000..7_200_000_000_i64));
    let number = prop::num::f64::NORMAL | prop::num::f64::ZERO;
    let text = || prop::option::of(".{0,20}");
    let values = (text(), prop::option::of(number), prop::option::of(any::<bool>()), text(), text());
    (ids, times, values).prop_map(|((id, user, session, kind), (time, ahead), (feature, amount, deep, os, batch))| {
        Event {
            id,
            user,
            session,
            kind: kind.to_owned(),
            time,
            received: ahead.map(|ahead| time - ahead),
            feature,
            amount,
            deep,
            os,
            batch,
        }
    })
}

const APP: &str = "app_0123456789abcdef";

/// An object of the members that are there.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let there = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect::<Map<String, Value>>())
}

fn text(text: &Option<String>) -> Option<Value> {
    text.clone().map(Value::String)
}

fn instant(time: Micros) -> Value {
    Value::String(format_micros(time).to_string())
}

impl Event {
    fn properties(&self) -> Value {
        let deep = self.deep.map(|deep| json!({"er": deep}));
        object([("feature", text(&self.feature)), ("amount", self.amount.map(Value::from)), ("deep", deep)])
    }

    fn native(&self) -> Value {
        object([
            ("event_id", text(&self.id)),
            ("app_id", Some(APP.into())),
            ("user_id", Some(self.user.as_str().into())),
            ("session_id", text(&self.session)),
            ("event_type", Some(self.kind.as_str().into())),
            ("timestamp", Some(instant(self.time))),
            ("properties", Some(self.properties())),
            ("context", Some(object([("os", text(&self.os))]))),
            ("metadata", Some(object([("received_at", self.received.map(instant)), ("batch_id", text(&self.batch))]))),
        ])
    }

    /// What the envelope has is left out of the body.
    fn body(&self) -> Value {
        let mut body = self.native();
        let members = body.as_object_mut().unwrap();
        for name in ["event_id", "user_id", "event_type", "timestamp"] {
            members.remove(name);
        }
        body
    }

    fn structured(&self) -> Value {
        object([
            ("specversion", Some("1.0".into())),
            ("source", Some("/test".into())),
            ("id", text(&self.id)),
            ("type", Some(self.kind.as_str().into())),
            ("time", Some(instant(self.time))),
            ("subject", Some(self.user.as_str().into())),
            ("data", Some(self.body())),
        ])
    }

    fn segment(&self) -> Value {
        object([
            ("type", Some("track".into())),
            ("event", Some(self.kind.as_str().into())),
            ("messageId", text(&self.id)),
            ("app_id", Some(APP.into())),
            ("userId", Some(self.user.as_str().into())),
            ("timestamp", Some(instant(self.time))),
            ("receivedAt", self.received.map(instant)),
            ("properties", Some(self.properties())),
            (
                "context",
                Some(object([
                    ("os", text(&self.os).map(|os| json!({"name": os}))),
                    ("sessionId", text(&self.session)),
                ])),
            ),
            ("metadata", Some(object([("batch_id", text(&self.batch))]))),
        ])
    }

    fn avro(&self, schema: &Schema) -> Vec<u8> {
        let optional = |value: Option<Avro>| match value {
            Some(value) => Avro::Union(1, Box::new(value)),
            None => Avro::Union(0, Box::new(Avro::Null)),
        };
        let text = |text: &Option<String>| optional(text.clone().map(Avro::String));
        let fields = |fields: Vec<(&str, Avro)>| {
            Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        };
        let deep = self.deep.map(|deep| Avro::Map([("er".to_owned(), Avro::Boolean(deep))].into()));
        let value = fields(vec![
            ("event_id", text(&self.id)),
            ("app_id", Avro::String(APP.to_owned())),
            ("user_id", Avro::String(self.user.clone())),
            ("session_id", text(&self.session)),
            ("event_type", Avro::String(self.kind.clone())),
            ("timestamp", Avro::TimestampMicros(self.time)),
            (
                "properties",
                fields(vec![
                    ("feature", text(&self.feature)),
                    ("amount", optional(self.amount.map(Avro::Double))),
                    ("deep", optional(deep)),
                ]),
            ),
            ("context", Avro::Map(self.os.iter().map(|os| ("os".to_owned(), Avro::String(os.clone()))).collect())),
            (
                "metadata",
                fields(vec![
                    ("received_at", optional(self.received.map(Avro::TimestampMicros))),
                    ("batch_id", text(&self.batch)),
                ]),
            ),
        ]);
        GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap()
    }

    fn protobuf(&self, descriptor: &MessageDescriptor) -> Vec<u8> {
        let mut event = DynamicMessage::new(descriptor.clone());
        let child = |name: &str| {
            DynamicMessage::new(descriptor.get_field_by_name(name).unwrap().kind().as_message().unwrap().clone())
        };
        let (mut properties, mut context, mut metadata) = (child("properties"), child("context"), child("metadata"));
        let set = |message: &mut DynamicMessage, name: &str, value: Option<Proto>| {
            if let Some(value) = value {
                message.set_field_by_name(name, value);
            }
        };
        let text = |text: &Option<String>| text.clone().map(Proto::String);
        set(&mut event, "event_id", text(&self.id));
        set(&mut event, "app_id", Some(Proto::String(APP.to_owned())));
        set(&mut event, "user_id", Some(Proto::String(self.user.clone())));
        set(&mut event, "session_id", text(&self.session));
        set(&mut event, "event_type", Some(Proto::String(self.kind.clone())));
        set(&mut event, "timestamp", Some(timestamp(descriptor, self.time)));
        set(&mut properties, "feature", text(&self.feature));
        set(&mut properties, "amount", self.amount.map(Proto::F64));
        set(&mut properties, "other", self.deep.map(|deep| other(descriptor, deep)));
        set(&mut context, "os", text(&self.os));
        set(&mut metadata, "received_at", self.received.map(|received| timestamp(descriptor, received)));
        set(&mut metadata, "batch_id", text(&self.batch));
        for (name, message) in [("properties", properties), ("context", context), ("metadata", metadata)] {
            set(&mut event, name, Some(Proto::Message(message)));
        }
        // The first message of the schema.
        [&[0][..], &event.encode_to_vec()].concat()
    }
}

fn well_known(descriptor: &MessageDescriptor, name: &str) -> DynamicMessage {
    let pool = descriptor.parent_pool();
    DynamicMessage::new(pool.get_message_by_name(&format!("google.protobuf.{name}")).unwrap())
}

fn timestamp(descriptor: &MessageDescriptor, time: Micros) -> Proto {
    let mut timestamp = well_known(descriptor, "Timestamp");
    timestamp.set_field_by_name("seconds", Proto::I64(time.div_euclid(1_000_000)));
    timestamp.set_field_by_name("nanos", Proto::I32((time.rem_euclid(1_000_000) * 1_000) as i32));
    Proto::Message(timestamp)
}

/// `{"deep": {"er": …}}` as the members that the contract does not know.
fn other(descriptor: &MessageDescriptor, deep: bool) -> Proto {
    let mut truth = well_known(descriptor, "Value");
    truth.set_field_by_name("bool_value", Proto::Bool(deep));
    let mut fields = well_known(descriptor, "Struct");
    let entries = [(MapKey::String("er".to_owned()), Proto::Message(truth))];
    fields.set_field_by_name("fields", Proto::Map(entries.into()));
    let mut value = well_known(descriptor, "Value");
    value.set_field_by_name("struct_value", Proto::Message(fields));
    Proto::Map([(MapKey::String("deep".to_owned()), Proto::Message(value))].into())
}

const SCHEMA: &str = r#"{"type":"record","name":"Event","fields":[
    {"name":"event_id","type":["null","string"]},{"name":"app_id","type":"string"},{"name":"user_id","type":"string"},
    {"name":"session_id","type":["null","string"]},{"name":"event_type","type":"string"},
    {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"properties","type":{"type":"record","name":"Properties","fields":[
        {"name":"feature","type":["null","string"]},{"name":"amount","type":["null","double"]},
        {"name":"deep","type":["null",{"type":"map","values":"boolean"}]}]}},
    {"name":"context","type":{"type":"map","values":"string"}},
    {"name":"metadata","type":{"type":"record","name":"Metadata","fields":[
        {"name":"received_at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
        {"name":"batch_id","type":["null","string"]}]}}]}"#;

const PROTO: &str = include_str!("../../../schemas/proto/whisperer/v1/event.proto");

/// A reader for each format, and what the writers need.
struct Formats {
    readers: Vec<EventReader>,
    avro: Schema,
    protobuf: MessageDescriptor,
    _registries: [StandIn; 3],
}

impl Formats {
    fn new() -> Formats {
        let registries = [StandIn::of("AVRO", SCHEMA), StandIn::of("PROTOBUF", PROTO), StandIn::of("JSON", "{}")];
        let framed =
            |encoding, registry: &StandIn| Format::Framed { encoding, registry: registry.options(), mapping: None };
        let formats = [
            Format::Native,
            Format::CloudEvents(Mapping::default()),
            Format::CloudEvents(Mapping::default()),
            Format::Segment(Mapping::default()),
            framed(Encoding::Avro, &registries[0]),
            framed(Encoding::Protobuf, &registries[1]),
            framed(Encoding::JsonSchema, &registries[2]),
        ];
        let reader = |format| EventReader::new(FormatOptions { format, ..options() }, &fields()).unwrap();
        let mut resolver = ChainFileResolver::new();
        resolver.add(IncludeFileResolver::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/proto").into()));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).open_file("whisperer/v1/event.proto").unwrap();
        Formats {
            readers: formats.map(reader).into(),
            avro: Schema::parse_str(SCHEMA).unwrap(),
            protobuf: compiler.descriptor_pool().get_message_by_name("whisperer.v1.Event").unwrap(),
            _registries: registries,
        }
    }

    /// What each reader makes of the event.
    fn read(&mut self, event: &Event) -> Vec<Outcome> {
        let time = format_micros(event.time).to_string();
        let attributes =
            [("ce_specversion", "1.0"), ("ce_type", &event.kind), ("ce_time", &time), ("ce_subject", &event.user)];
        let id = event.id.as_deref().map(|id| ("ce_id", id));
        let headers: Vec<(&str, &[u8])> =
            attributes.into_iter().chain(id).map(|(name, text)| (name, text.as_bytes())).collect();
        let contents = [
            event.native().to_string().into_bytes(),
            event.structured().to_string().into_bytes(),
            event.body().to_string().into_bytes(),
            event.segment().to_string().into_bytes(),
            frame(1, &event.avro(&self.avro)),
            frame(1, &event.protobuf(&self.protobuf)),
            frame(1, event.native().to_string().as_bytes()),
        ];
        let records = self.readers.iter_mut().zip(&contents).enumerate();
        records
            .map(|(format, (reader, content))| {
                let headers = if format == 2 { &headers[..] } else { &[] };
                outcome(reader.read(&RawRecord { headers, ..raw(Payload::Json(content)) }, shown))
            })
            .collect()
    }
}

thread_local! {
    static FORMATS: std::cell::RefCell<Formats> = std::cell::RefCell::new(Formats::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_event_is_the_same_in_every_format(event in events()) {
        // Goal: ids, types, times to the microsecond, clamping, texts and numbers, and the reason where it is rejected.
        let outcomes = FORMATS.with_borrow_mut(|formats| formats.read(&event));
        for (format, outcome) in outcomes.iter().enumerate() {
            prop_assert_eq!(outcome, &outcomes[0], "format {} of {:?}", format, event);
        }
    }
}
