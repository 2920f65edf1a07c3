//! Limits on what a request may hold, which are checked on its bytes before it is decoded. A message of a few kilobytes can
//! hold millions of empty entries, which would take a hundred times the memory and seconds to decode.
//!
//! The limits stand in `proto/`, in the options `max_entries` and `max_total_entries` of the fields; `build.rs` makes the table of
//! them.

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::proto::v1;
use domain::error::InvalidField;

/// How many times its limit a field may have here. The handler refuses what is beyond the limit itself, and names every wrong
/// field of the request at once.
const TOLERANCE: usize = 2;

/// A message whose repeated fields have limits.
pub trait Bounded {
    /// `None` for a message without repeated fields.
    const SHAPE: Option<&'static Shape> = None;
}

/// The repeated fields of a message and of the messages in it that are not repeated.
pub struct Shape {
    fields: &'static [Field],
    /// How many repeated fields there are.
    n_counters: usize,
    /// How many fields of the whole request are counted in all messages together; 0 in the shape of an entry.
    n_totals: usize,
    /// A message of fewer bytes than this is within all limits.
    always_within_bytes: usize,
}

struct Field {
    number: u32,
    name: &'static str,
    entries: Entries,
}

enum Entries {
    /// A repeated field. `total`: its limit in all messages of the request together. `each`: the shape of an entry, if it has
    /// repeated fields itself.
    Counted {
        counter: usize,
        max: usize,
        total: Option<Total>,
        each: Option<&'static Shape>,
    },
    /// A message that has repeated fields. It may come in several pieces, whose entries add up.
    Within(&'static [Field]),
}

struct Total {
    counter: usize,
    max: usize,
}

include!(concat!(env!("OUT_DIR"), "/request_limits.rs"));

/// Checks an encoded message of type `M`. Bytes that are no such message pass, because decoding them names what is wrong.
///
/// # Errors
/// `BATCH_SIZE_OUT_OF_RANGE` naming the first field that has more entries than [`TOLERANCE`] times its limit.
pub fn check<M: Bounded>(bytes: &[u8]) -> Result<(), InvalidField> {
    match M::SHAPE {
        Some(shape) if bytes.len() >= shape.always_within_bytes * TOLERANCE => {
            shape.check(bytes, &mut vec![0; shape.n_totals])
        }
        _ => Ok(()),
    }
}

impl Shape {
    fn check(&self, bytes: &[u8], totals: &mut [usize]) -> Result<(), InvalidField> {
        let mut counts = vec![0; self.n_counters];
        count(self.fields, bytes, &mut counts, totals).map(drop)
    }
}

/// Counts the entries of `fields` in `message`. Returns `None` where it cannot be read any further.
///
/// `counts`: those of the message and of the messages in it that are not repeated; `totals`: those of the whole request.
fn count(
    fields: &[Field],
    mut message: &[u8],
    counts: &mut [usize],
    totals: &mut [usize],
) -> Result<Option<()>, InvalidField> {
    while message.has_remaining() {
        let Ok((number, wire_type)) = decode_key(&mut message) else {
            return Ok(None);
        };
        let field = fields.iter().find(|field| field.number == number);
        let (Some(field), WireType::LengthDelimited) = (field, wire_type) else {
            match skip_field(wire_type, number, &mut message, DecodeContext::default()) {
                Ok(()) => continue,
                Err(_) => return Ok(None),
            }
        };
        let length = decode_varint(&mut message)
            .ok()
            .and_then(|length| usize::try_from(length).ok());
        let Some((inner, rest)) = length.and_then(|length| message.split_at_checked(length)) else {
            return Ok(None);
        };
        message = rest;
        match &field.entries {
            Entries::Within(fields) => {
                count(fields, inner, counts, totals).map_err(|error| error.within(field.name))?;
            }
            Entries::Counted {
                counter,
                max,
                total,
                each,
            } => {
                let position = counts[*counter];
                let refuse = |max: usize, among: &str| {
                    let message = format!(
                        "must have at most {max} entries{among}, has more than {}",
                        max * TOLERANCE
                    );
                    Err(InvalidField::new(field.name, "BATCH_SIZE_OUT_OF_RANGE", message))
                };
                if position == *max * TOLERANCE {
                    return refuse(*max, "");
                }
                counts[*counter] += 1;
                if let Some(total) = total {
                    if totals[total.counter] == total.max * TOLERANCE {
                        return refuse(total.max, " in the whole request");
                    }
                    totals[total.counter] += 1;
                }
                if let Some(each) = each {
                    let within = |error: InvalidField| error.within(format!("{}[{position}]", field.name));
                    each.check(inner, totals).map_err(within)?;
                }
            }
        }
    }
    Ok(Some(()))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn check<M: Message + Bounded>(message: &M, expected: Result<(), &str>) {
        check_bytes::<M>(&message.encode_to_vec(), expected);
    }

    fn check_bytes<M: Bounded>(bytes: &[u8], expected: Result<(), &str>) {
        let checked = super::check::<M>(bytes).map_err(|error| {
            assert_eq!(error.reason, "BATCH_SIZE_OUT_OF_RANGE");
            error.field
        });
        assert_eq!(checked, expected.map_err(str::to_owned));
    }

    #[test]
    fn entries_are_counted_in_each_message_and_its_parts() {
        let ratings = |count| v1::UpsertRatingsRequest {
            ratings: vec![v1::Rating::default(); count],
        };
        check(&ratings(2_000), Ok(()));
        check(&ratings(2_001), Err("ratings"));

        let session = |count| v1::RecommendRequest {
            subject: Some(v1::recommend_request::Subject::Session(v1::SessionItems {
                items: vec![v1::SessionItem::default(); count],
            })),
            filter: Some(v1::ItemFilter {
                exclude_item_ids: vec![String::new(); 20_000],
                categories: vec![String::new(); 2_000],
                ..v1::ItemFilter::default()
            }),
            ..v1::RecommendRequest::default()
        };
        check(&session(2_000), Ok(()));
        check(&session(2_001), Err("session.items"));
    }

    #[test]
    fn entries_of_an_entry_are_counted_for_each_of_them() {
        let rule = |values| v1::Rule {
            kind: Some(v1::rule::Kind::Attribute(v1::AttributeRule {
                name: "a".to_owned(),
                values: vec![String::new(); values],
            })),
        };
        let coupon = |values| v1::CreateCouponRequest {
            coupon: Some(v1::CouponSpec {
                rules: Some(v1::Rules {
                    rules: vec![rule(2_000), rule(2_000), rule(values)],
                }),
                ..v1::CouponSpec::default()
            }),
        };
        check(&coupon(2_000), Ok(()));
        check(&coupon(2_001), Err("coupon.rules.rules[2].attribute.values"));
    }

    #[test]
    fn entries_of_all_entries_are_counted_together_where_they_have_such_a_limit() {
        let orders = |counts: &[usize]| {
            let order = |&lines: &usize| v1::Order {
                lines: vec![v1::OrderLine::default(); lines],
                ..v1::Order::default()
            };
            v1::RecordOrdersRequest {
                orders: counts.iter().map(order).collect(),
            }
        };
        check(&orders(&[20_000]), Ok(()));
        check(&orders(&[20_001]), Err("orders[0].lines"));
        check(&orders(&[5_000, 5_000, 5_000, 5_000, 0]), Ok(()));
        check(&orders(&[5_000, 5_000, 5_000, 5_000, 1]), Err("orders[4].lines"));
        check(&orders(&[100; 201]), Err("orders[200].lines"));
    }

    #[test]
    fn the_pieces_of_a_message_count_together() {
        let piece = v1::RecommendRequest {
            filter: Some(v1::ItemFilter {
                merchant_ids: vec![String::new(); 1_200],
                ..v1::ItemFilter::default()
            }),
            ..v1::RecommendRequest::default()
        }
        .encode_to_vec();
        assert_eq!(
            v1::RecommendRequest::decode([&piece[..], &piece].concat().as_slice())
                .unwrap()
                .filter
                .unwrap()
                .merchant_ids
                .len(),
            2_400
        );
        check_bytes::<v1::RecommendRequest>(&piece, Ok(()));
        check_bytes::<v1::RecommendRequest>(&[&piece[..], &piece].concat(), Err("filter.merchant_ids"));
    }

    #[test]
    fn unknown_fields_are_passed_over_and_broken_bytes_pass() {
        let ratings = v1::UpsertRatingsRequest {
            ratings: vec![v1::Rating::default(); 2_001],
        }
        .encode_to_vec();
        // Field 99: a varint, fixed 64 bits, bytes, a group with the number of a known field in it, fixed 32 bits.
        let unknown: [&[u8]; 5] = [
            &[0x98, 6, 0xff, 1],
            &[0x99, 6, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x9a, 6, 2, 10, 0],
            &[0x9b, 6, 10, 0, 0x9c, 6],
            &[0x9d, 6, 1, 2, 3, 4],
        ];
        for unknown in unknown {
            check_bytes::<v1::UpsertRatingsRequest>(&[unknown, &ratings].concat(), Err("ratings"));
            check_bytes::<v1::UpsertRatingsRequest>(&[&ratings[..4_000], unknown].concat(), Ok(()));
        }
        let broken: [&[u8]; 4] = [&[0], &[10, 0xff, 0xff, 0xff, 0x7f], &[0x9b, 6], &[0xff; 20]];
        for broken in broken {
            check_bytes::<v1::UpsertRatingsRequest>(&[&[10, 0].repeat(2_000)[..], broken].concat(), Ok(()));
        }
    }
}
