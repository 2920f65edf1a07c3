//! Generates the table of how many entries the repeated fields of requests may have.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;

use protox::prost_reflect::{DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};

/// The limit of a repeated field without the option: that of a batch.
const DEFAULT_MAX_ENTRIES: i32 = 1_000;

/// Returns Rust code that implements `Bounded` for every message that an RPC takes or returns.
///
/// # Errors
/// An option is below 0, or a request holds a message that may hold itself.
pub fn table(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let option = |name: &str| {
        pool.get_extension_by_name(&format!("likemind.v1.{name}"))
            .ok_or_else(|| format!("access.proto does not define the option likemind.v1.{name}"))
    };
    let options = Options {
        max_entries: option("max_entries")?,
        max_total_entries: option("max_total_entries")?,
    };
    let (mut requests, mut others) = (BTreeMap::new(), BTreeMap::new());
    for method in pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
    {
        requests.insert(method.input().full_name().to_owned(), method.input());
        others.insert(method.output().full_name().to_owned(), method.output());
    }
    others.retain(|name, _| !requests.contains_key(name));
    let mut table = String::new();
    for message in others.values() {
        writeln!(table, "impl Bounded for v1::{} {{}}", message.name())?;
    }
    for message in requests.values() {
        let mut scope = Scope::default();
        let mut above = Above::default();
        let fields = fields(message, &options, &mut scope, &mut above)?;
        let shape = match scope.n_counters {
            0 => "None".to_owned(),
            _ => format!("Some({})", scope.code(&fields, above.n_totals)),
        };
        writeln!(
            table,
            "impl Bounded for v1::{} {{ const SHAPE: Option<&'static Shape> = {shape}; }}",
            message.name()
        )?;
    }
    Ok(table)
}

/// Whether `message`, or a message in it, has a repeated field.
pub fn has_entries(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| {
        let within = |inner: &MessageDescriptor| inner.full_name() != message.full_name() && has_entries(inner);
        is_repeated(&field) || field.kind().as_message().is_some_and(within)
    })
}

/// Numbers do not count: decoded, they take only a few times the memory of their bytes.
fn is_repeated(field: &FieldDescriptor) -> bool {
    let is_counted = matches!(field.kind(), Kind::Message(_) | Kind::String | Kind::Bytes);
    is_counted && (field.is_list() || field.is_map())
}

/// A message together with the messages in it that are not repeated. Their repeated fields have a counter each, because a
/// message may be sent in several pieces, whose entries add up.
#[derive(Default)]
struct Scope {
    n_counters: usize,
    least_max_entries: Option<i32>,
}

impl Scope {
    /// `n_totals`: the fields of the whole request that are counted in all messages together.
    fn code(&self, fields: &str, n_totals: usize) -> String {
        // An entry takes 2 bytes or more.
        let always_within_bytes = 2 * self.least_max_entries.unwrap_or(0);
        format!(
            "&Shape {{ fields: &[{fields}], n_counters: {}, n_totals: {n_totals}, always_within_bytes: {always_within_bytes} }}",
            self.n_counters
        )
    }
}

/// The options of fields.
struct Options {
    max_entries: ExtensionDescriptor,
    max_total_entries: ExtensionDescriptor,
}

/// The part of a request that has been gone through.
#[derive(Default)]
struct Above {
    /// The names of the messages that hold the present one.
    messages: Vec<String>,
    /// The fields so far that are counted in all messages together.
    n_totals: usize,
}

/// Returns Rust code for the fields of `message` that are repeated or hold repeated ones.
fn fields(
    message: &MessageDescriptor,
    options: &Options,
    scope: &mut Scope,
    above: &mut Above,
) -> Result<String, Box<dyn Error>> {
    let name = message.full_name().to_owned();
    if above.messages.contains(&name) {
        return Err(format!("{name} may hold itself, which requests must not").into());
    }
    above.messages.push(name);
    let mut code = String::new();
    for field in message.fields() {
        let kind = field.kind();
        let inner = kind.as_message();
        let entries = if is_repeated(&field) {
            let max = option_of(&field, &options.max_entries)?.unwrap_or(DEFAULT_MAX_ENTRIES);
            let max_total = option_of(&field, &options.max_total_entries)?;
            let counter = scope.n_counters;
            scope.n_counters += 1;
            scope.least_max_entries = Some(scope.least_max_entries.map_or(max, |least| least.min(max)));
            let total = match max_total {
                Some(max) => {
                    above.n_totals += 1;
                    format!("Some(Total {{ counter: {}, max: {max} }})", above.n_totals - 1)
                }
                None => "None".to_owned(),
            };
            let mut each = Scope::default();
            let inner = inner
                .map(|inner| fields(inner, options, &mut each, above))
                .transpose()?;
            if let Some(least) = each.least_max_entries {
                scope.least_max_entries = scope.least_max_entries.map(|other| other.min(least));
            }
            let each = match inner {
                Some(inner) if each.n_counters > 0 => format!("Some({})", each.code(&inner, 0)),
                _ => "None".to_owned(),
            };
            format!("Entries::Counted {{ counter: {counter}, max: {max}, total: {total}, each: {each} }}")
        } else if let Some(inner) = inner.filter(|inner| has_entries(inner)) {
            format!("Entries::Within(&[{}])", fields(inner, options, scope, above)?)
        } else {
            continue;
        };
        write!(
            code,
            "Field {{ number: {}, name: \"{}\", entries: {entries} }}, ",
            field.number(),
            field.name()
        )?;
    }
    above.messages.pop();
    Ok(code)
}

/// Returns a limit that a field has; `None` where it is left at 0.
fn option_of(field: &FieldDescriptor, option: &ExtensionDescriptor) -> Result<Option<i32>, String> {
    match field.options().get_extension(option).as_i32() {
        Some(0) | None => Ok(None),
        Some(max) if max > 0 => Ok(Some(max)),
        Some(max) => Err(format!(
            "{}: {} must be 0 or more, is {max}",
            field.full_name(),
            option.name()
        )),
    }
}
