use proptest::prelude::*;

use crate::snapshot::activity::Activity;
use crate::snapshot::bits::Bits;
use crate::snapshot::catalog::Catalog;
use crate::snapshot::consents::ConsentRecords;
use crate::snapshot::fixture::{EXAMPLE, any_parts, buy, catalog, item_facts, orders, snapshot_parts};
use crate::snapshot::merchant_orders::MerchantOrders;
use crate::snapshot::parameters::{DefaultRanker, ImplicitFeedback, TrainingOptions};
use crate::snapshot::parts::{Absence, Optional};
use crate::snapshot::propensity::{Feature, Propensity, PropensityEvidence, PropensityModel, PropensityTerm};
use crate::snapshot::ratings::RankSlice;
use crate::snapshot::settings::FittedSettings;
use crate::snapshot::significance::SignificantNeighbors;
use crate::snapshot::{Biases, Snapshot};
use demand::history::{Return, Sale, SalesHistory, StockOut};
use demand::model::{Demand, DemandModel};
use domain::consent::{Consents, Purpose};
use domain::item::ItemFacts;
use similarity::lists::{NeighborLists, WeightLists};
use similarity::significance::SignificantLists;

use super::*;

const PARAMETERS: &str = "parameters";
const WEIGHTS: &str = "weights";
const USERS: &str = "users";
const ITEMS: &str = "items";
const CATALOG: &str = "catalogue";
const RATINGS: &str = "ratings";
const BIASES: &str = "biases";
const USER_NEIGHBORS: &str = "user_neighbors";
const ITEM_NEIGHBORS: &str = "item_neighbors";
const ACTIVITY: &str = "activity";
const CONSENTS: &str = "consents";
const PROPENSITY: &str = "propensity";
const MERCHANT_ORDERS: &str = "merchant_orders";
const ITEM_WEIGHTS: &str = "item_weights";
const DEFAULT_RANKER: &str = "default_ranker";
const FITTED_SETTINGS: &str = "fitted_settings";
const ORDERS: &str = "orders";
const DEMAND: &str = "demand";
const SIGNIFICANT_ITEM_NEIGHBORS: &str = "significant_item_neighbors";

/// Parts without which a snapshot is served.
const OPTIONAL: [&str; 8] = [
    PROPENSITY,
    ITEM_WEIGHTS,
    DEFAULT_RANKER,
    FITTED_SETTINGS,
    ORDERS,
    SIGNIFICANT_ITEM_NEIGHBORS,
    MERCHANT_ORDERS,
    DEMAND,
];

mod allocations;
mod mutations;
mod release_before;
mod versions;

type Stored = Vec<(String, Vec<u8>)>;

fn encoded(parts: &SnapshotParts) -> Stored {
    encode(parts).map(|part| (part.name.to_owned(), part.bytes)).collect()
}

fn checksum(stored: &Stored) -> [u8; 16] {
    let mut checksum = Checksum::default();
    for (name, bytes) in stored {
        checksum.add(name, bytes);
    }
    checksum.finish()
}

/// Decodes under the checksum that goes with the bytes.
fn decoded(stored: Stored) -> Result<SnapshotParts, CodecError> {
    let checksum = checksum(&stored);
    decode(stored, &checksum)
}

/// Makes the part of that name with other contents, intact by length and checksum.
fn part_of(name: &str, contents: &[u8]) -> (String, Vec<u8>) {
    part_of_version(0, name, contents)
}

fn part_of_version(version: u16, name: &str, contents: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), seal(name, [&header(version), contents].concat()))
}

fn contents(bytes: &[u8]) -> &[u8] {
    &bytes[header(0).len()..bytes.len() - CHECKSUM_BYTES]
}

/// [`rich_parts`] with the parts that were added since.
fn full_parts() -> SnapshotParts {
    let lists = WeightLists::new(5, vec![0, 2, 2, 2, 3, 3], vec![1, 3, 0], vec![-0.5, 1.5, -1e-3]);
    let rich = rich_parts();
    let significant = NeighborLists::new(5, vec![0, 1, 1, 1, 3, 3], vec![3, 4, 0], vec![0.25, 0.5, 0.25]);
    let mut settings = FittedSettings::default();
    settings.all_items.habit_weight = 2.0;
    settings.new_items.trend_exponent = 0.5;
    SnapshotParts {
        fitted_settings: Optional::Present(settings),
        orders: Optional::Present(orders(&rich, |_| 3, 0.125)),
        significant_item_neighbors: Optional::Present(SignificantNeighbors {
            shrinkage: 5.0,
            neighbors: SignificantLists {
                lists: significant.unwrap(),
                co_raters: vec![2, 3, 2],
            },
        }),
        item_weights: Optional::Present(lists.unwrap()),
        default_ranker: DefaultRanker::Popularity,
        merchant_orders: Optional::Present(MerchantOrders::new(3, &[(0, 1, 1_700_000_000), (2, 0, -5), (2, 1, 7)])),
        demand: Optional::Present(Demand::Fitted(Box::new(demand_model()))),
        ..rich
    }
}

/// Sales of a few weeks, on which little can be fitted.
fn demand_model() -> DemandModel {
    let sales = [(0, 1, 3.0), (4, 2, 1.0), (0, 3, 8.0)].map(|(item, week, quantity)| Sale { item, week, quantity });
    let returned = Return {
        sale: 2,
        week: 3,
        quantity: 2.0,
    };
    let stock_outs = vec![StockOut { item: 3, week: 1 }];
    let history = SalesHistory::new(5, 4, &sales, &[returned], stock_outs).unwrap();
    DemandModel::fit(history, 2_900, 3, 0.125).unwrap()
}

#[test]
fn the_reason_why_no_demand_was_fitted_comes_back() {
    let reason = "there are no sales in a week that is over".to_owned();
    let parts = SnapshotParts {
        demand: Optional::Present(Demand::NotFitted { reason: reason.clone() }),
        ..rich_parts()
    };
    let back = decoded(encoded(&parts)).unwrap();
    assert_eq!(back, parts);
    assert_eq!(Snapshot::new(back).unwrap().demand().unwrap_err(), reason);
}

#[test]
fn sales_may_name_only_items_of_the_snapshot() {
    let sales = [Sale {
        item: 0,
        week: 0,
        quantity: 1.0,
    }];
    let history = SalesHistory::new(4, 1, &sales, &[], Vec::new()).unwrap();
    let model = DemandModel::fit(history, 0, 1, 0.0).unwrap();
    let parts = SnapshotParts {
        demand: Optional::Present(Demand::Fitted(Box::new(model))),
        ..rich_parts()
    };
    let error = Snapshot::new(parts).unwrap_err().to_string();
    assert_eq!(error, "demand has 4 entries where 5 are expected");
}

/// The example with everything that a snapshot could hold when all parts were of version 0.
fn rich_parts() -> SnapshotParts {
    let mut parts = snapshot_parts(&EXAMPLE);
    parts.parameters.options.implicit = ImplicitFeedback::LogOrders;
    let mut facts = [
        item_facts("Teapot", "kitchen", "acme"),
        ItemFacts::default(),
        item_facts("Über-mug", "mugs", "acme"),
        item_facts("", "art", "Zeta"),
        ItemFacts::default(),
    ];
    facts[4].listed = false;
    parts.catalog = catalog(&facts);
    buy(&mut parts, 0, &[3]);
    parts.biases = Biases {
        global_mean: 1.875,
        users: vec![0.5, -0.25, 0.0],
        items: vec![0.75, -0.0, 1e-3, -1.5, 0.125],
    };
    parts.weights.ranking = 1.0 / 3.0;
    parts.activity = Activity {
        as_of: 1_735_689_600,
        orders: vec![3, 0, 300],
        spend_minor: vec![1_999, 0, -5],
        last_order_at: vec![1_735_600_000, 0, -86_400],
        discounted_lines: vec![1, 0, 2],
        redemptions: vec![0, 0, 1],
        campaigns: vec![2, 0, 70_000],
    };
    let refused = Consents::default().with(Purpose::Profiling, Some(false));
    let suppressed = Consents::default().with(Purpose::Training, Some(true)).suppressed(true);
    let records = ConsentRecords::new(["nobody", "u1"].iter().collect(), vec![refused, suppressed]);
    parts.consents = records.unwrap();
    parts.propensity = Propensity::Fitted(PropensityModel {
        intercept: -2.5,
        campaign_variance: 0.5,
        terms: vec![PropensityTerm {
            feature: Feature::Affinity,
            mean: 0.25,
            scale: 2.0,
            weight: 1.5,
        }],
        evidence: PropensityEvidence {
            campaigns: 2,
            recipients: 70_001,
            redeemers: 1,
            redemptions: 1,
        },
    });
    parts
}

proptest! {
    #[test]
    fn every_snapshot_comes_back(parts in any_parts()) {
        let stored = encoded(&parts);
        let back = decoded(stored.clone()).unwrap();
        prop_assert_eq!(&back, &parts);
        prop_assert_eq!(encoded(&back), stored);
        prop_assert!(Snapshot::new(back).is_ok());
    }

    #[test]
    fn chunks_may_be_cut_anywhere(parts in any_parts(), n_bytes in 1..50_usize) {
        let stored = encoded(&parts);
        let decoded = stored.iter().map(|(name, bytes)| {
            let chunks = bytes.chunks(n_bytes).map(<[u8]>::to_vec);
            decode_part(name, bytes.len() as u64, chunks).unwrap()
        });
        prop_assert_eq!(assemble(decoded, &checksum(&stored)).unwrap(), parts);
    }
}

/// Its ranks take more than two bytes.
#[test]
fn a_large_catalog_comes_back() {
    let mut row = vec![0.0; 70_000];
    (row[7], row[69_999]) = (2.5, 3.0);
    let mut parts = snapshot_parts(&[&row]);
    buy(&mut parts, 0, &[69_999]);
    assert!(matches!(parts.ratings.ranks(), RankSlice::Wide(_)));
    assert_eq!(decoded(encoded(&parts)).unwrap(), parts);
}

#[test]
fn the_order_of_the_parts_does_not_matter() {
    let parts = rich_parts();
    let mut stored = encoded(&parts);
    let in_order = checksum(&stored);
    stored.reverse();
    assert_eq!(checksum(&stored), in_order);
    assert_eq!(decode(stored, &in_order).unwrap(), parts);
}

/// When this fails, stored snapshots may no longer be read: undo the change, or raise the version of the part and go on
/// reading the one before. Only a new field of the parameters is free to change the bytes of its part.
#[test]
fn the_bytes_are_those_of_format_3() {
    let expected = [
        "parameters 202 7f75f3794b3e0ee2c6384f58d612f5d8",
        "weights 76 c64566258fc99774a5415f1bc288abac",
        "users 54 42e64f97272f4ec3e322e9868c2f710f",
        "items 60 b777af777e230704bc297cf07f7d6503",
        "catalogue 198 20eaad177ae7403a61605a32bfb5bd5f",
        "ratings 131 b7e660c67c4d0be9e25bc6fd53833bcb",
        "biases 104 73466fdffc8468d079b55fd855487742",
        "user_neighbors 99 cf44463ac79f835a5159e177a8ea8e14",
        "item_neighbors 121 073ca25200d0b84a4660903a95c18f95",
        "activity 167 15285807b7663ab35a4dc333551e6cd4",
        "consents 66 c1bd3149b610984f162bd2b3637b34bf",
        "propensity 235 cfdb65b7169050dab7930d34c687e8a2",
    ];
    let actual: Vec<String> = encoded(&rich_parts())
        .iter()
        .map(|(name, bytes)| {
            let checksum = u128::from_le_bytes(*bytes.last_chunk().unwrap());
            format!("{name} {} {checksum:032x}", bytes.len())
        })
        .collect();
    assert_eq!(actual, expected);
}

#[test]
fn the_checksum_of_a_snapshot_by_hand() {
    let mut checksum = Checksum::default();
    checksum.add("b", &[&b"contents"[..], &[2; 16]].concat());
    checksum.add("a", &[1; 16]);
    let hashed = [&b"a\0"[..], &[1; 16], b"b\0", &[2; 16]].concat();
    assert_eq!(checksum.finish(), xxhash_rust::xxh3::xxh3_128(&hashed).to_le_bytes());
}

#[test]
fn the_bytes_of_a_small_part_by_hand() {
    let stored = encoded(&rich_parts());
    let (_, bytes) = stored.iter().find(|(name, _)| name == USERS).unwrap();
    let length = 20 + 8 + 1 + 3 + 6 + 16;
    let expected = [
        &b"likemind\x03\0\0\0"[..],
        &[length, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0],
        &[1, 2, 2, 2],
        b"u0u1u2",
    ];
    assert_eq!(bytes[..bytes.len() - CHECKSUM_BYTES], expected.concat());
}

#[test]
fn parameters_may_lack_what_was_added_later() {
    let mut stored = encoded(&rich_parts());
    let json = br#"{"scale": {"min": 0.5, "max": 10}, "options": {"neighbors": 7}}"#;
    stored[0] = part_of(PARAMETERS, json);
    let parameters = decoded(stored).unwrap().parameters;
    let neighbors = TrainingOptions {
        neighbors: 7,
        ..TrainingOptions::default()
    };
    assert_eq!((parameters.scale.min, parameters.options), (0.5, neighbors));
}

#[test]
fn neighbors_and_ratings_are_small() {
    let rows: Vec<Vec<f32>> = (0..300)
        .map(|user| (0..300).map(|item| ((user * item) % 11) as f32 / 2.0).collect())
        .collect();
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let parts = snapshot_parts(&rows);
    let size = |name: &str| {
        let part = encode(&parts).find(|part| part.name == name).unwrap();
        part.bytes.len() as f64
    };
    assert!(size(USER_NEIGHBORS) / (parts.user_neighbors.len() as f64) < 6.1);
    assert!(size(RATINGS) / (parts.ratings.nnz() as f64) < 3.2);
}

#[test]
fn every_error_names_the_part() {
    let check = |stored: Stored, message: &str| {
        assert_eq!(decoded(stored).unwrap_err().to_string(), message);
    };
    let base = encoded(&full_parts());
    assert_eq!(base.len(), PARTS.len());
    for (at, (name, bytes)) in base.iter().enumerate() {
        let with = |bytes: Vec<u8>| {
            let mut stored = base.clone();
            stored[at].1 = bytes;
            stored
        };
        let with_byte = |position: usize, flip: u8| {
            let mut bytes = bytes.clone();
            bytes[position] ^= flip;
            with(bytes)
        };
        let (first, middle, last) = (0, bytes.len() / 2, bytes.len() - 1);

        let mut stored = base.clone();
        stored.remove(at);
        match OPTIONAL.contains(&name.as_str()) {
            true => assert!(decoded(stored).is_ok(), "{name}"),
            false => check(stored, &format!("part {name} is missing")),
        }
        let mut stored = base.clone();
        stored.push(base[at].clone());
        check(stored, &format!("part {name} is given twice"));

        check(
            with_byte(first, 1),
            &format!("part {name} does not begin like a part of a snapshot"),
        );
        check(
            with(Vec::new()),
            &format!("part {name} does not begin like a part of a snapshot"),
        );
        check(
            with_byte(8, 1),
            &format!("part {name} has format version 2, but this program reads 3"),
        );
        check(
            with(bytes[..10].to_vec()),
            &format!("part {name} ends before the end of its format version"),
        );
        check(
            with(bytes[..19].to_vec()),
            &format!("part {name} ends before the end of its length"),
        );
        let n_bytes = bytes.len();
        let shorter = format!("part {name} has {last} bytes, but {n_bytes} were written");
        check(with(bytes[..last].to_vec()), &shorter);
        let damaged = format!("part {name} is damaged: its bytes do not match its checksum");
        check(with_byte(middle, 0x10), &damaged);
        check(with_byte(last, 0x80), &damaged);
        let other = usize::from(at == 0);
        check(
            with(seal(&base[other].0, [&header(0), contents(bytes)].concat())),
            &damaged,
        );

        let mut header = header(0);
        header[LENGTH_AT] = 20;
        check(
            with(header),
            &format!("part {name} ends before the end of its checksum"),
        );
        if ![PARAMETERS, PROPENSITY, DEFAULT_RANKER, FITTED_SETTINGS, DEMAND].contains(&name.as_str()) {
            let cut = &contents(bytes)[..contents(bytes).len() - 1];
            let error = decoded(with(part_of(name, cut).1)).unwrap_err();
            assert!(
                matches!(&error, CodecError::Ended { part, .. } if part == name),
                "{error}"
            );
            let surplus = [contents(bytes), &[0, 0]].concat();
            let message = format!("part {name} goes on for 2 bytes after its last field");
            check(with(part_of(name, &surplus).1), &message);
        }
    }
}

#[test]
fn chunks_that_do_not_come_or_are_too_many_are_noticed() {
    for (name, bytes) in encoded(&full_parts()) {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let check = |chunks: &[&[u8]]| {
            let chunks = chunks.iter().map(|chunk| chunk.to_vec());
            let error = decode_part(&name, bytes.len() as u64, chunks).unwrap_err();
            assert!(
                matches!(&error, CodecError::Checksum { part } if *part == name),
                "{error}"
            );
        };
        check(&[first]);
        check(&[first, &second[..second.len() - 1]]);
        check(&[first, second, &[0]]);
    }
}

#[test]
fn a_part_of_another_snapshot_is_noticed() {
    let mut stored = encoded(&rich_parts());
    let written = checksum(&stored);
    stored[5] = encoded(&snapshot_parts(&EXAMPLE))[5].clone();
    assert!(matches!(decode(stored, &written), Err(CodecError::Exchanged { .. })));
    assert!(matches!(
        decode(encoded(&rich_parts()), &[]),
        Err(CodecError::Exchanged { .. })
    ));
}

/// Contents that are intact and wrong are an error that names the part, and take no memory for entries that are not there.
#[test]
fn intact_nonsense_is_refused() {
    fn check(part: &str, write: impl FnOnce(&mut Writer), problem: &str) {
        let mut writer = Writer::new(Vec::new());
        write(&mut writer);
        let mut stored = encoded(&full_parts());
        let at = stored.iter().position(|(name, _)| name == part).unwrap();
        stored[at] = part_of(part, &writer.into_bytes());
        let (error, allocated) = on_one_thread(|| allocations::allocated_by(|| decoded(stored).unwrap_err()));
        assert_eq!(error.to_string(), format!("part {part}{problem}"));
        assert!(allocated < 64 * 1024, "{error}: {allocated} bytes allocated");
    }
    let ones = |n: u64| (0..n as usize).map(|_| 1);
    let huge = 1 << 60;

    let unknown_field = ": unknown field `x`, expected `scale` or `options` at line 1 column 4";
    check(PARAMETERS, |to| to.raw(br#"{"x":1}"#), unknown_field);
    check(
        PARAMETERS,
        |to| to.raw(b""),
        ": EOF while parsing a value at line 1 column 0",
    );
    check(
        WEIGHTS,
        |to| to.doubles(&[0.5; 5]),
        ": weights are not as many as this program knows",
    );

    let ended = " ends before the end of its ids";
    check(USERS, |to| to.raw(&[[0xff; 8], [1; 8]].concat()), ended);
    check(USERS, |to| to.raw(&[&[0xff; 8][..], &[8]].concat()), ended);
    check(
        USERS,
        |to| to.raw(&[&1_u64.to_le_bytes()[..], &[8], &[0xff; 8]].concat()),
        ended,
    );
    check(USERS, |to| to.integers(ones(3)), ended);
    let width = ": ids are not 1 to 4 or 8 bytes wide";
    check(USERS, |to| to.raw(&[&[0xff; 8][..], &[0], &[0; 64]].concat()), width);
    check(
        USERS,
        |to| to.raw(&[&[1, 0, 0, 0, 0, 0, 0, 0][..], &[5], &[0; 64]].concat()),
        width,
    );
    check(
        USERS,
        |to| to.integers([u64::MAX, 1].into_iter()),
        ": ids add up to more than 64 bits",
    );
    let unordered = ": ids are not strictly ascending, or too many";
    check(ITEMS, |to| to.texts(&["b", "a"].iter().collect()), unordered);
    check(ITEMS, |to| to.texts(&["a", "a"].iter().collect()), unordered);
    let not_text = |to: &mut Writer| {
        to.integers([1].into_iter());
        to.raw(&[0xff]);
    };
    check(ITEMS, not_text, ": ids are not UTF-8");
    let cut = |to: &mut Writer| {
        to.integers(ones(2));
        to.raw("é".as_bytes());
    };
    check(ITEMS, cut, ": ids are cut inside of a character");

    let catalog = |change: fn(&mut Catalog)| {
        let mut parts = rich_parts();
        change(&mut parts.catalog);
        let part = PartEntry::find(CATALOG).unwrap();
        move |to: &mut Writer| (part.encode)(&parts, to)
    };
    let lengths = catalog(|all| all.price_minor.push(1));
    check(CATALOG, lengths, ": its columns differ in length");
    let no_category = catalog(|all| all.category_of[0] = 3);
    check(
        CATALOG,
        no_category,
        ": an item refers to a category that does not exist",
    );
    let twice = catalog(|all| all.currencies.push(all.currencies[0]));
    let ascending = ": its categories, merchants or currencies are not strictly ascending";
    check(CATALOG, twice, ascending);
    let lower_case = |to: &mut Writer| {
        for _ in 0..3 {
            to.texts(&Default::default());
        }
        to.u64(1);
        to.raw(b"gbp");
    };
    check(CATALOG, lower_case, ": currencies are not all three capital letters");

    let wide = |to: &mut Writer| {
        to.integers([0, 1, 2, 3, 4].into_iter());
        to.lengths(&[0, 1]);
        to.integers([huge].into_iter());
    };
    check(RATINGS, wide, ": ranks are not 1 or 2 bytes wide");
    let outside = |to: &mut Writer| {
        to.integers([0, 1, 2, 3, 4].into_iter());
        to.lengths(&[0, 1]);
        to.integers([5].into_iter());
        to.floats(&[1.0]);
        to.bits(&Bits::zeros(1));
    };
    check(RATINGS, outside, ": entry (row 0, column 5) lies outside of 5 columns");
    let no_value = |to: &mut Writer| {
        to.integers([0, 1, 2, 3, 4].into_iter());
        to.lengths(&[0, 1]);
        to.integers([1].into_iter());
        to.floats(&[f32::NAN]);
        to.bits(&Bits::zeros(1));
    };
    check(
        RATINGS,
        no_value,
        ": entry (row 0, column 1) is NaN; it must be finite and above 0",
    );
    let past_the_end = |to: &mut Writer| {
        to.integers([0, 1, 2, 3, 4].into_iter());
        to.lengths(&[0]);
        to.integers(ones(0));
        to.floats(&[]);
        to.u64(3);
        to.u64(0b1000);
    };
    check(RATINGS, past_the_end, ": purchased have bits past their end");
    let out_of_order = |to: &mut Writer| {
        to.integers([0, 1, 2, 3, 4].into_iter());
        to.lengths(&[0, 1]);
        to.integers([1].into_iter());
        to.floats(&[1.0]);
        to.bits(&Bits::zeros(1));
    };
    check(
        RATINGS,
        out_of_order,
        ": items by popularity are not all items, most ratings first, equals in order",
    );

    let floats = |n_distinct: u16, positions: &'static [u8]| {
        move |to: &mut Writer| {
            to.doubles(&[1.0]);
            to.u64(positions.len() as u64);
            to.raw(&n_distinct.to_le_bytes());
            (0..u32::from(n_distinct)).for_each(|value| to.raw(&value.to_le_bytes()));
            to.raw(positions);
        }
    };
    check(
        BIASES,
        floats(2, &[0, 2]),
        ": biases of the users refer to a distinct value that does not exist",
    );
    let twice = |to: &mut Writer| {
        to.doubles(&[1.0]);
        to.u64(1);
        to.raw(&2_u16.to_le_bytes());
        to.raw(&[0; 4].repeat(2));
        to.raw(&[0]);
    };
    check(
        BIASES,
        twice,
        ": biases of the users have distinct values that do not ascend",
    );
    check(
        BIASES,
        floats(257, &[0]),
        ": biases of the users have more distinct values than a byte can name",
    );

    let not_square = |to: &mut Writer| {
        to.u64(huge);
        to.lengths(&[0, 1]);
    };
    check(
        USER_NEIGHBORS,
        not_square,
        ": number of targets is not the number of lists",
    );
    let many_lists = |to: &mut Writer| {
        to.u64(huge);
        to.u64(huge);
        to.raw(&[1, 0, 0, 0]);
    };
    check(USER_NEIGHBORS, many_lists, " ends before the end of its lengths");
    let own = |to: &mut Writer| {
        to.u64(1);
        to.lengths(&[0, 1]);
        to.integers([0].into_iter());
        to.floats(&[0.5]);
    };
    check(ITEM_NEIGHBORS, own, ": row 0 lists itself as a neighbor");
    check(ITEM_WEIGHTS, own, ": row 0 has a weight for itself");
    check(
        ITEM_WEIGHTS,
        not_square,
        ": number of targets is not the number of lists",
    );
    check(ITEM_WEIGHTS, many_lists, " ends before the end of its lengths");
    let no_weight = |to: &mut Writer| {
        to.u64(2);
        to.lengths(&[0, 1, 1]);
        to.integers([1].into_iter());
        to.floats(&[0.0]);
    };
    let message = ": entry (row 0, column 1) is 0; a weight must be finite and not 0";
    check(ITEM_WEIGHTS, no_weight, message);

    check(ACTIVITY, |to| to.raw(&[0; 4]), " ends before the end of its time");
    let wide = |to: &mut Writer| {
        to.u64(0);
        to.integers([huge].into_iter());
    };
    check(ACTIVITY, wide, ": orders are not 1 to 4 bytes wide");
    let said = |ids: &'static [&'static str], bits: &'static [u64]| {
        move |to: &mut Writer| {
            to.texts(&ids.iter().collect());
            to.integers(bits.iter().copied());
        }
    };
    let unknown = ": consents are not all known";
    check(CONSENTS, said(&["a"], &[0b11]), unknown);
    check(CONSENTS, said(&["a"], &[256]), unknown);
    let unordered = ": ids are not strictly ascending, or not as many";
    check(CONSENTS, said(&["b", "a"], &[1, 1]), unordered);
    check(CONSENTS, said(&["a"], &[1, 1]), unordered);
    check(
        PROPENSITY,
        |to| to.raw(br#"{"guessed":{}}"#),
        ": unknown variant `guessed`, expected `fitted` or `not_fitted` at line 1 column 10",
    );
}

/// Runs `work` where everything it allocates is counted on one thread.
fn on_one_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(work)
}
