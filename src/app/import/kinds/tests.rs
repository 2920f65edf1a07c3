use chrono::{DateTime, TimeZone, Utc};

use super::super::columns::{ColumnMap, FileFacts};
use super::*;
use domain::item::MerchantPatch;
use domain::rating::Rating;
use tabular::input::Input;
use tabular::open::{Format, ReadOptions, open};
use tabular::option_names::OptionNames;

fn rules() -> Rules {
    Rules {
        scale: RatingScale::default(),
        times: Arc::new(TimeFormats::default()),
        numbers: NumberFormat::default(),
        now: Utc.with_ymd_and_hms(2020, 1, 1, 0, 0, 0).unwrap(),
    }
}

fn kind<K: RecordKind>(header: &str, constants: &[(&str, &str)]) -> Result<K, ColumnError> {
    let constants = constants
        .iter()
        .map(|(field, text)| ((*field).to_owned(), (*text).to_owned()));
    let column_map = ColumnMap {
        constants: constants.collect(),
        ..ColumnMap::default()
    };
    let header = header.split(',').map(str::to_owned).collect();
    K::new(
        &mut Columns::new(
            header,
            K::FIELDS,
            &column_map,
            FileFacts::new(Format::Csv, OptionNames::Arguments),
        )?,
        &rules(),
    )
}

/// Reads the lines after `header`. Returns each value as `show` prints it, or the field and the reason of its rejection.
fn read<K: RecordKind>(header: &str, lines: &[u8], show: impl Fn(K::Value) -> String) -> Vec<String> {
    let mut kind: K = kind(header, &[]).unwrap();
    let text = [header.as_bytes(), b"\n", lines].concat();
    let input = Input::new("test", std::io::Cursor::new(text), None);
    let mut records = open(input, &ReadOptions::default()).unwrap().rows;
    let mut seen = Vec::new();
    while let Some(record) = records.next().unwrap() {
        seen.push(match kind.read(&record.unwrap()) {
            Ok(value) => show(value),
            Err(error) => format!("{} {}", error.field, error.reason),
        });
    }
    seen
}

fn show(text: Option<impl ToString>) -> String {
    text.map_or("-".to_owned(), |text| text.to_string())
}

#[test]
fn ratings_are_read() {
    let check = |line: &[u8], want: &str| {
        let seen = read::<Ratings>("user_id,item_id,value,rated_at", line, |rating| {
            let Rating {
                user,
                item,
                value,
                rated_at,
            } = rating;
            format!("{user} {item} {value} {}", rated_at.to_rfc3339())
        });
        assert_eq!(seen, [want], "{}", line.escape_ascii());
    };
    check(b"ann,tea,4.5,2019-05-01", "ann tea 4.5 2019-05-01T00:00:00+00:00");
    check(b" ann,tea, 5 , 2019-05-01 ", "ann tea 5 2019-05-01T00:00:00+00:00");
    check(b"ann,tea,1,", "ann tea 1 2020-01-01T00:00:00+00:00");
    check(b",tea,1,", "user_id MISSING");
    check(b"ann,  ,1,", "item_id MISSING");
    check(b"ann,tea,,", "value MISSING");
    check(b"ann,te\xe9,1,", "item_id INVALID_UTF8");
    check(b"a\x01nn,tea,1,", "user_id ID_HAS_CONTROL_CHARACTER");
    check(b"ann,\"te\na\",1,", "item_id ID_HAS_CONTROL_CHARACTER");
    check(
        &[b"ann,".as_slice(), &b"x".repeat(129), b",1,"].concat(),
        "item_id ID_TOO_LONG",
    );
    check(b"ann,tea,good,", "value INVALID_NUMBER");
    check(b"ann,tea,0.5,", "value RATING_OUT_OF_RANGE");
    check(b"ann,tea,5.1,", "value RATING_OUT_OF_RANGE");
    check(b"ann,tea,NaN,", "value RATING_OUT_OF_RANGE");
    check(b"ann,tea,1,soon", "rated_at INVALID_TIMESTAMP");
    check(b"ann,tea,1,2020-01-03", "rated_at TIME_OUT_OF_RANGE");
    check(b"ann,tea,1,1899-12-31", "rated_at TIME_OUT_OF_RANGE");
}

fn purchases(amount: &str, lines: &str) -> Vec<String> {
    let header = format!("order_id,user_id,item_id,quantity,{amount},currency,purchased_at");
    read::<Purchases>(&header, lines.as_bytes(), |line| {
        format!(
            "{}/{}/{}#{} {} {}",
            line.order, line.user, line.item, line.line_number, line.quantity, line.line_total
        )
    })
}

#[test]
fn purchases_are_read() {
    let check = |amount: &str, line: &str, want: &str| {
        assert_eq!(purchases(amount, &format!("{line}\n")), [want], "{amount}: {line}");
    };
    check(
        "unit_price",
        "1,ann,tea,6,2.55,GBP,2019-05-01",
        "1/ann/tea#1 6 15.30 GBP",
    );
    check(
        "unit_price",
        "1,ann,tea,-2,2.55,GBP,2019-05-01",
        "1/ann/tea#1 -2 -5.10 GBP",
    );
    check(
        "unit_price",
        "1,ann,tea,3,0.335,GBP,2019-05-01",
        "unit_price TOO_MANY_DECIMALS",
    );
    check(
        "unit_price",
        "1,ann,tea,3.0,100,JPY,2019-05-01",
        "1/ann/tea#1 3 300 JPY",
    );
    check("line_total", "1,ann,tea,6,2.5,USD,2019-05-01", "1/ann/tea#1 6 2.50 USD");
    check(
        "line_total",
        "1,ann,tea,6,2.4999999999,USD,2019-05-01",
        "1/ann/tea#1 6 2.50 USD",
    );
    check(
        "line_total_minor",
        "1,ann,tea,6,255,USD,2019-05-01",
        "1/ann/tea#1 6 2.55 USD",
    );
    check(
        "line_total_minor",
        "1,ann,tea,6,2.55,USD,2019-05-01",
        "line_total_minor INVALID_NUMBER",
    );
    check("line_total", "1,ann,tea,0,2.5,USD,2019-05-01", "quantity ZERO_QUANTITY");
    check(
        "line_total",
        "1,ann,tea,0.5,2.5,USD,2019-05-01",
        "quantity INVALID_NUMBER",
    );
    check(
        "line_total",
        "1,ann,tea,two,2.5,USD,2019-05-01",
        "quantity INVALID_NUMBER",
    );
    check(
        "line_total",
        "1,ann,tea,3000000000,2.5,USD,2019-05-01",
        "quantity OUT_OF_RANGE",
    );
    check(
        "line_total",
        "1,ann,tea,1,\"2,5\",USD,2019-05-01",
        "line_total INVALID_NUMBER",
    );
    check(
        "line_total",
        "1,ann,tea,1,99999999999999999999,USD,2019-05-01",
        "line_total AMOUNT_OUT_OF_RANGE",
    );
    check("line_total", "1,ann,tea,1,,USD,2019-05-01", "line_total MISSING");
    check(
        "line_total",
        "1,ann,tea,1,2.5,us,2019-05-01",
        "currency INVALID_CURRENCY",
    );
    check("line_total", "1,ann,tea,1,2.5,,2019-05-01", "currency MISSING");
    check("line_total", "1,ann,tea,1,2.5,USD,", "purchased_at MISSING");
    check("line_total", ",ann,tea,1,2.5,USD,2019-05-01", "order_id MISSING");
}

#[test]
fn rejected_lines_take_a_line_number_too() {
    let lines = "1,ann,tea,1,2,USD,2019-05-01\n\
                 1,ann,tea,0,2,USD,2019-05-01\n\
                 1,ann,pot,1,2,USD,2019-05-01\n\
                 1,ann,tea,3,2,USD,2019-05-01\n";
    let want = [
        "1/ann/tea#1 1 2.00 USD",
        "quantity ZERO_QUANTITY",
        "1/ann/pot#1 1 2.00 USD",
        "1/ann/tea#3 3 2.00 USD",
    ];
    assert_eq!(purchases("line_total", lines), want);
}

#[test]
fn line_numbers_of_the_file_are_kept() {
    let header = "order_id,line_number,user_id,item_id,quantity,line_total_minor,currency,purchased_at";
    let check = |number: &str, want: &str| {
        let line = format!("1,{number},ann,tea,1,5,USD,2019-05-01\n");
        let seen = read::<Purchases>(header, line.as_bytes(), |line| line.line_number.to_string());
        assert_eq!(seen, [want], "{number}");
    };
    check("7", "7");
    check("0", "line_number LINE_NUMBER_OUT_OF_RANGE");
    check("", "line_number MISSING");
    check("x", "line_number INVALID_NUMBER");
}

#[test]
fn items_are_read() {
    let header = "item_id,title,merchant_id,category,price,currency,listed";
    let check = |line: &str, want: &str| {
        let seen = read::<Items>(header, format!("{line}\n").as_bytes(), |item| {
            let facts = [
                show(item.title),
                show(item.merchant),
                show(item.category),
                show(item.price),
                show(item.listed),
            ];
            format!("{}: {}", item.id, facts.join("|"))
        });
        assert_eq!(seen, [want], "{line}");
    };
    check(
        "tea,Green tea,leaf,drinks,2.5,GBP,yes",
        "tea: Green tea|leaf|drinks|2.50 GBP|true",
    );
    check("tea,,,,,,", "tea: -|-|-|-|-");
    check("tea,,,,,GBP,0", "tea: -|-|-|-|false");
    check("tea,,,,2.5,,", "currency MISSING");
    check("tea,,,,-2.5,GBP,", "price NEGATIVE_PRICE");
    check("tea,,,,,,maybe", "listed INVALID_BOOLEAN");
    check("tea,\"two\nlines\",,,,,", "tea: two lines|-|-|-|-");
    check(&format!("tea,{},,,,,", "x".repeat(1025)), "title TEXT_TOO_LONG");
}

#[test]
fn merchants_are_read() {
    let show = |merchant: MerchantPatch| format!("{} {}", merchant.id, show(merchant.name));
    let seen = read::<Merchants>("merchant_id,name", b"leaf,Leaf & Co\npot,\n,x\n", show);
    assert_eq!(seen, ["leaf Leaf & Co", "pot -", "merchant_id MISSING"]);
}

#[test]
fn a_missing_or_bad_column_is_reported_before_any_line_is_read() {
    let check = |error: Option<ColumnError>, want: &str| {
        let got = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(got.starts_with(want), "{got}");
    };
    check(kind::<Ratings>("user_id,item_id", &[]).err(), "value is missing");
    check(
        kind::<Ratings>("user_id,item_id", &[("value", "9")]).err(),
        "the constant for value is not valid: must lie between",
    );
    check(
        kind::<Ratings>("user_id,item_id", &[("value", "3"), ("rated_at", "2019-05-01")]).err(),
        "",
    );
    let header = "order_id,user_id,item_id,purchased_at";
    let set = [("quantity", "1"), ("currency", "GBP")];
    check(
        kind::<Purchases>(header, &set).err(),
        "line_total_minor or line_total or unit_price is missing",
    );
    check(kind::<Purchases>(&format!("{header},unit_price"), &set).err(), "");
    check(
        kind::<Purchases>(&format!("{header},unit_price"), &set[..1]).err(),
        "currency is missing",
    );
    check(
        kind::<Purchases>(&format!("{header},unit_price"), &set[1..]).err(),
        "quantity is missing",
    );
    check(
        kind::<Purchases>(&format!("{header},unit_price,line_total"), &set).err(),
        "only one of line_total, unit_price can be used",
    );
    check(kind::<Items>("item_id,price", &[]).err(), "currency is missing");
    check(kind::<Items>("item_id", &[]).err(), "");
    check(kind::<Items>("item_id", &[("currency", "pounds")]).err(), "");
    check(
        kind::<Items>("item_id,price", &[("currency", "pounds")]).err(),
        "the constant for currency is not valid: must be",
    );
}

#[test]
fn instants_are_kept_to_the_microsecond() {
    let line = b"ann,tea,5,2019-05-01T00:00:00.123456789Z\n";
    let seen = read::<Ratings>("user_id,item_id,value,rated_at", line, |rating| {
        rating.rated_at.timestamp_micros().to_string()
    });
    let want = DateTime::parse_from_rfc3339("2019-05-01T00:00:00.123456Z").unwrap();
    assert_eq!(seen, [want.timestamp_micros().to_string()]);
}
