//! What a value that is written as one scalar says of itself, and what it gets for that.

/// Something that is written as one scalar.
pub(super) trait Scalar: Sized {
    /// What a fault says was expected.
    const WANTED: &'static str;

    /// Reads it; the error may hold a suggestion.
    fn parse(text: &str) -> Result<Self, Option<String>>;

    /// What stands in for one that is wrong.
    fn stand_in() -> Self;

    /// Its JSON Schema.
    fn schema() -> serde_json::Value;
}

/// Gives scalars their reading and their schema, and makes them serialise as they are written.
macro_rules! scalar {
    ($($ty:ident),* $(,)?) => {$(
        impl $crate::config::read::Read for $ty {
            fn read<'n>(node: &'n $crate::config::tree::Node<'n>, reader: &mut $crate::config::read::Reader<'n>) -> Self {
                let Some(text) = node.text() else {
                    return reader.wrong(node, <Self as Scalar>::WANTED, None);
                };
                match <Self as Scalar>::parse(text) {
                    Ok(value) => value,
                    Err(help) => reader.wrong(node, <Self as Scalar>::WANTED, help),
                }
            }

            fn placeholder() -> Self {
                <Self as Scalar>::stand_in()
            }
        }

        impl schemars::JsonSchema for $ty {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($ty).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::Schema::try_from(<Self as Scalar>::schema()).unwrap_or_default()
            }
        }

        impl serde::Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
pub(super) use scalar;
