//! Registered schemas: the header that names a record's schema (`wire`), the plans made of schemas (`plans`,
//! `decode_plan`), the fields in them (`fields`), and what is reported of new fields (`watch`, `against`).

pub(in crate::decode) mod against;
pub(in crate::decode) mod decode_plan;
pub(in crate::decode) mod fields;
pub(in crate::decode) mod plans;
pub(in crate::decode) mod schema_field;
pub(in crate::decode) mod watch;
pub(in crate::decode) mod wire;
