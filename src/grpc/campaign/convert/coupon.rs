//! Converts coupons.

use tonic::Status;

use super::{at_least, unknown};
use crate::admission;
use crate::admission::refusal::Refusal;
use crate::grpc::convert::required;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;
use crate::store::coupons::stored::StoredCoupon;
use domain::access::Caller;
use domain::coupon::{
    Coupon, CouponPatch, DEFAULT_RESERVATION_TTL_SECONDS, Discount, ItemSet, MAX_BASIS_POINTS,
    MAX_RESERVATION_TTL_SECONDS, MAX_RULES, MAX_VALUES, MinCartBasis, Rule, Scope,
};
use domain::error::InvalidField;
use domain::id::{CampaignId, Category, CouponId, ItemId, MerchantId};
use domain::item::check_text;

/// The checked fields of a coupon's message.
struct Spec {
    /// `None` when it is left out.
    campaign: Option<CampaignId>,
    patch: CouponPatch,
}

fn spec(violations: &mut Violations, spec: v1::CouponSpec, caller: &Caller) -> Result<Option<Spec>, Status> {
    check_merchants(&spec, caller)?;
    let mut field = Within(violations);
    let id = field.check(CouponId::new(spec.coupon_id));
    let campaign = match spec.campaign_id.is_empty() {
        true => Some(None),
        false => field.check(CampaignId::new(spec.campaign_id).map(Some)),
    };
    let title = field.check(spec.title.map(|title| check_text("title", title)).transpose());
    let discount = field.check(spec.discount.map(discount).transpose());
    let max_discount = field.check(at_least("max_discount_minor", spec.max_discount_minor, 1));
    let min_cart = field.check(at_least("min_cart_minor", spec.min_cart_minor, 0));
    let basis = field.check(spec.min_cart_basis.map(min_cart_basis).transpose());
    let scope = field.all(spec.scope.map(scope));
    let user_cap = field.check(at_least("per_user_cap", spec.per_user_cap.map(i64::from), 1));
    let total_cap = field.check(at_least("total_cap", spec.total_cap, 0));
    let ttl = field.check(spec.reservation_ttl_seconds.map(ttl).transpose());
    let rules = field.all(spec.rules.map(rules));
    let fields = id
        .zip(campaign)
        .zip(title)
        .zip(discount)
        .zip(max_discount)
        .zip(min_cart)
        .zip(basis);
    let limits = scope.zip(user_cap).zip(total_cap).zip(ttl).zip(rules);
    let spec = fields.zip(limits).map(|(fields, limits)| {
        let ((((((id, campaign), title), discount), max_discount_minor), min_cart_minor), min_cart_basis) = fields;
        let ((((scope, user_cap), total_cap), reservation_ttl_seconds), rules) = limits;
        Spec {
            campaign,
            patch: CouponPatch {
                id,
                title,
                discount,
                max_discount_minor: max_discount_minor.map(Some),
                min_cart_minor,
                min_cart_basis,
                scope,
                // An i32 before.
                per_user_cap: user_cap.map(|cap| i32::try_from(cap).ok()),
                total_cap: total_cap.map(Some),
                reservation_ttl_seconds,
                rules,
            },
        }
    });
    Ok(spec)
}

fn min_cart_basis(basis: i32) -> Result<MinCartBasis, InvalidField> {
    match v1::MinCartBasis::try_from(basis) {
        Ok(v1::MinCartBasis::Unspecified | v1::MinCartBasis::BeforeDiscounts) => Ok(MinCartBasis::BeforeDiscounts),
        Ok(v1::MinCartBasis::AfterDiscounts) => Ok(MinCartBasis::AfterDiscounts),
        Err(_) => Err(unknown("min_cart_basis", basis)),
    }
}

/// Checks the merchants in the scope and in every rule.
fn check_merchants(spec: &v1::CouponSpec, caller: &Caller) -> Result<(), Refusal> {
    let of_scope = spec.scope.iter().filter_map(|scope| match &scope.of {
        Some(v1::scope::Of::Items(set)) => Some(set),
        _ => None,
    });
    let of_rules = spec
        .rules
        .iter()
        .flat_map(|rules| &rules.rules)
        .filter_map(|rule| match &rule.kind {
            Some(v1::rule::Kind::Bought(set) | v1::rule::Kind::NotBought(set)) => Some(set),
            _ => None,
        });
    let named = of_scope.chain(of_rules).flat_map(|set| &set.merchant_ids);
    admission::check_merchants(caller, "coupon", named.map(String::as_str))
}

/// Notes errors as errors of the field `coupon`.
struct Within<'a>(&'a mut Violations);

impl Within<'_> {
    fn check<T>(&mut self, result: Result<T, InvalidField>) -> Option<T> {
        self.0.check(result.map_err(|error| error.within("coupon")))
    }

    /// Notes all errors of a part of the message. Returns `Some(None)` when the part is left out.
    fn all<T>(&mut self, part: Option<Result<T, Vec<InvalidField>>>) -> Option<Option<T>> {
        match part {
            None => Some(None),
            Some(Ok(part)) => Some(Some(part)),
            Some(Err(errors)) => {
                for error in errors {
                    self.0.add(error.within("coupon"));
                }
                None
            }
        }
    }
}

fn discount(discount: v1::Discount) -> Result<Discount, InvalidField> {
    let out_of_range =
        |field: &str, message: String| Err(InvalidField::new(format!("discount.{field}"), "OUT_OF_RANGE", message));
    match discount.kind {
        None => Err(InvalidField::new("discount.kind", "MISSING", "must be given")),
        Some(v1::discount::Kind::PercentBasisPoints(points)) => match u16::try_from(points) {
            Ok(basis_points @ 1..=MAX_BASIS_POINTS) => Ok(Discount::Percent { basis_points }),
            _ => {
                let message = format!("must lie between 1 and {MAX_BASIS_POINTS}, is {points}");
                out_of_range("percent_basis_points", message)
            }
        },
        Some(v1::discount::Kind::AmountMinor(amount_minor @ 1..)) => Ok(Discount::Amount { amount_minor }),
        Some(v1::discount::Kind::AmountMinor(other)) => {
            out_of_range("amount_minor", format!("must be 1 or more, is {other}"))
        }
        Some(v1::discount::Kind::FreeShipping(true)) => Ok(Discount::FreeShipping),
        Some(v1::discount::Kind::FreeShipping(false)) => out_of_range("free_shipping", "must be true".to_owned()),
    }
}

fn ttl(seconds: i32) -> Result<i32, InvalidField> {
    match seconds {
        1..=MAX_RESERVATION_TTL_SECONDS => Ok(seconds),
        _ => {
            let message = format!("must lie between 1 and {MAX_RESERVATION_TTL_SECONDS}, is {seconds}");
            Err(InvalidField::new("reservation_ttl_seconds", "OUT_OF_RANGE", message))
        }
    }
}

fn scope(scope: v1::Scope) -> Result<Scope, Vec<InvalidField>> {
    let wrong = |field: &str, reason, message: &str| Err(vec![InvalidField::new(field, reason, message)]);
    match scope.of {
        None => wrong("scope.of", "MISSING", "must be given"),
        Some(v1::scope::Of::Everything(true)) => Ok(Scope::All),
        Some(v1::scope::Of::Everything(false)) => wrong("scope.everything", "OUT_OF_RANGE", "must be true"),
        Some(v1::scope::Of::Items(set)) => Ok(Scope::Listed(item_set("scope.items", set)?)),
    }
}

fn item_set(at: &str, set: v1::ItemSet) -> Result<ItemSet, Vec<InvalidField>> {
    let mut errors = Vec::new();
    let items = names(&mut errors, &format!("{at}.item_ids"), set.item_ids, |id| {
        ItemId::new(id)
    });
    let categories = names(&mut errors, &format!("{at}.categories"), set.categories, |id| {
        Category::new(id)
    });
    let merchants = names(&mut errors, &format!("{at}.merchant_ids"), set.merchant_ids, |id| {
        MerchantId::new(id)
    });
    let set = ItemSet {
        items: distinct(items),
        categories: distinct(categories),
        merchants: distinct(merchants),
    };
    match errors.is_empty() {
        true => Ok(set),
        false => Err(errors),
    }
}

/// Sorts the names and drops repetitions, so that the same set always compares equal.
fn distinct<T: Ord>(mut names: Vec<T>) -> Vec<T> {
    names.sort_unstable();
    names.dedup();
    names
}

fn names<T>(
    errors: &mut Vec<InvalidField>,
    field: &str,
    names: Vec<String>,
    read: impl Fn(String) -> Result<T, InvalidField>,
) -> Vec<T> {
    if names.len() > MAX_VALUES {
        let message = format!("must have at most {MAX_VALUES} entries, has {}", names.len());
        errors.push(InvalidField::new(field, "BATCH_SIZE_OUT_OF_RANGE", message));
        return Vec::new();
    }
    let mut valid = Vec::with_capacity(names.len());
    for (position, name) in names.into_iter().enumerate() {
        match read(name) {
            Ok(name) => valid.push(name),
            Err(error) => errors.push(InvalidField {
                field: format!("{field}[{position}]"),
                ..error
            }),
        }
    }
    valid
}

fn rules(rules: v1::Rules) -> Result<Vec<Rule>, Vec<InvalidField>> {
    if rules.rules.len() > MAX_RULES {
        let message = format!("must have at most {MAX_RULES} entries, has {}", rules.rules.len());
        return Err(vec![InvalidField::new(
            "rules.rules",
            "BATCH_SIZE_OUT_OF_RANGE",
            message,
        )]);
    }
    let (mut valid, mut errors) = (Vec::new(), Vec::new());
    for (position, message) in rules.rules.into_iter().enumerate() {
        match rule(message) {
            Ok(rule) => valid.push(rule),
            Err(wrong) => {
                let at = format!("rules.rules[{position}]");
                errors.extend(wrong.into_iter().map(|error| error.within(&at)));
            }
        }
    }
    match errors.is_empty() {
        true => Ok(valid),
        false => Err(errors),
    }
}

fn rule(rule: v1::Rule) -> Result<Rule, Vec<InvalidField>> {
    use v1::rule::Kind;
    let wrong = |field: &str, reason, message: String| Err(vec![InvalidField::new(field, reason, message)]);
    let within = |field: &'static str| move |error: InvalidField| vec![error.within(field)];
    match rule.kind {
        None => wrong("kind", "MISSING", "must be given".to_owned()),
        Some(Kind::Bought(set)) => Rule::Bought(item_set("bought", set)?).check().map_err(within("bought")),
        Some(Kind::NotBought(set)) => Rule::NotBought(item_set("not_bought", set)?)
            .check()
            .map_err(within("not_bought")),
        Some(Kind::CategoryAffinity(rule)) => {
            let category = Category::new(rule.category).map_err(within("category_affinity"))?;
            let min_share = rule.min_share;
            Rule::CategoryAffinity { category, min_share }
                .check()
                .map_err(within("category_affinity"))
        }
        Some(Kind::MinAffinity(min_score)) => Rule::MinAffinity { min_score }.check().map_err(|error| {
            let field = "min_affinity".to_owned();
            vec![InvalidField { field, ..error }]
        }),
        Some(Kind::NewUser(true)) => Ok(Rule::NewUser),
        Some(Kind::NewUser(false)) => wrong("new_user", "OUT_OF_RANGE", "must be true".to_owned()),
        Some(Kind::LapsedDays(days)) => match u32::try_from(days) {
            Ok(days @ 1..=MAX_DAYS) => Ok(Rule::LapsedUser { days }),
            _ => {
                let message = format!("must lie between 1 and {MAX_DAYS}, is {days}");
                wrong("lapsed_days", "OUT_OF_RANGE", message)
            }
        },
        Some(Kind::Attribute(rule)) => attribute(rule),
    }
}

/// A hundred years.
const MAX_DAYS: u32 = 36_500;

fn attribute(rule: v1::AttributeRule) -> Result<Rule, Vec<InvalidField>> {
    let mut errors = Vec::new();
    let name = check_text("attribute.name", rule.name).and_then(|name| match name.is_empty() {
        true => Err(InvalidField::new("attribute.name", "MISSING", "must be given")),
        false => Ok(name),
    });
    let name = name.map_err(|error| errors.push(error)).ok();
    let values = names(&mut errors, "attribute.values", rule.values, |value| {
        check_text("value", value)
    });
    if errors.is_empty()
        && let Some(name) = name
    {
        let rule = Rule::Attribute { name, values }.check();
        return rule.map_err(|error| vec![error.within("attribute")]);
    }
    Err(errors)
}

pub fn new_coupon(request: v1::CreateCouponRequest, caller: &Caller) -> Result<Coupon, Status> {
    let mut violations = Violations::default();
    let Some(message) = violations.check(required("coupon", request.coupon)) else {
        return violations.finish(None);
    };
    // A campaign id that is left out gets the error of an empty id.
    let no_campaign = message.campaign_id.is_empty().then(|| CampaignId::new(""));
    let spec = spec(&mut violations, message, caller)?;
    let mut field = Within(&mut violations);
    let campaign = match no_campaign {
        Some(empty) => field.check(empty),
        None => spec.as_ref().and_then(|spec| spec.campaign.clone()),
    };
    let Some(Spec { patch, .. }) = spec else {
        return violations.finish(None);
    };
    let discount = field.check(required("discount", patch.discount));
    let coupon = campaign.zip(discount).map(|(campaign, discount)| Coupon {
        id: patch.id,
        campaign,
        title: patch.title.unwrap_or_default(),
        discount,
        max_discount_minor: patch.max_discount_minor.flatten(),
        min_cart_minor: patch.min_cart_minor.unwrap_or(0),
        min_cart_basis: patch.min_cart_basis.unwrap_or_default(),
        scope: patch.scope.unwrap_or(Scope::All),
        per_user_cap: patch.per_user_cap.flatten(),
        total_cap: patch.total_cap.flatten(),
        reservation_ttl_seconds: patch.reservation_ttl_seconds.unwrap_or(DEFAULT_RESERVATION_TTL_SECONDS),
        rules: patch.rules.unwrap_or_default(),
    });
    violations.finish(coupon)
}

pub fn coupon_patch(request: v1::UpdateCouponRequest, caller: &Caller) -> Result<CouponPatch, Status> {
    let mut violations = Violations::default();
    let Some(message) = violations.check(required("coupon", request.coupon)) else {
        return violations.finish(None);
    };
    let Some(Spec { campaign, mut patch }) = spec(&mut violations, message, caller)? else {
        return violations.finish(None);
    };
    let mut field = Within(&mut violations);
    if campaign.is_some() {
        let fixed = InvalidField::new("campaign_id", "CANNOT_CHANGE", "cannot be changed; leave it out");
        field.check::<()>(Err(fixed));
    }
    let mut clear = |flag: bool, name: &str, is_given: bool| {
        if flag && is_given {
            let message = "must be left out when it is cleared";
            field.check::<()>(Err(InvalidField::new(name, "CONTRADICTION", message)));
        }
    };
    clear(
        request.clear_max_discount,
        "max_discount_minor",
        patch.max_discount_minor.is_some(),
    );
    clear(request.clear_per_user_cap, "per_user_cap", patch.per_user_cap.is_some());
    clear(request.clear_total_cap, "total_cap", patch.total_cap.is_some());
    if request.clear_max_discount {
        patch.max_discount_minor = Some(None);
    }
    if request.clear_per_user_cap {
        patch.per_user_cap = Some(None);
    }
    if request.clear_total_cap {
        patch.total_cap = Some(None);
    }
    violations.finish(Some(patch))
}

impl From<StoredCoupon> for v1::Coupon {
    fn from(stored: StoredCoupon) -> Self {
        let coupon = stored.coupon;
        Self {
            coupon_id: coupon.id.to_string(),
            campaign_id: coupon.campaign.to_string(),
            title: coupon.title,
            discount: Some(v1::Discount {
                kind: Some(match coupon.discount {
                    Discount::Percent { basis_points } => v1::discount::Kind::PercentBasisPoints(basis_points.into()),
                    Discount::Amount { amount_minor } => v1::discount::Kind::AmountMinor(amount_minor),
                    Discount::FreeShipping => v1::discount::Kind::FreeShipping(true),
                }),
            }),
            max_discount_minor: coupon.max_discount_minor,
            min_cart_minor: coupon.min_cart_minor,
            min_cart_basis: match coupon.min_cart_basis {
                MinCartBasis::BeforeDiscounts => v1::MinCartBasis::BeforeDiscounts,
                MinCartBasis::AfterDiscounts => v1::MinCartBasis::AfterDiscounts,
            }
            .into(),
            scope: Some(v1::Scope {
                of: Some(match coupon.scope {
                    Scope::All => v1::scope::Of::Everything(true),
                    Scope::Listed(set) => v1::scope::Of::Items(set.into()),
                }),
            }),
            per_user_cap: coupon.per_user_cap,
            reservation_ttl_seconds: coupon.reservation_ttl_seconds,
            rules: Some(v1::Rules {
                rules: coupon.rules.into_iter().map(v1::Rule::from).collect(),
            }),
            usage: Some(v1::Usage {
                total_cap: coupon.total_cap,
                reserved: stored.reserved,
                redeemed: stored.redeemed,
            }),
            scope_item_count: stored.covered_count,
            scope_named_item_count: stored.item_count,
            rule_value_count: stored.rule_value_count,
        }
    }
}

impl From<ItemSet> for v1::ItemSet {
    fn from(set: ItemSet) -> Self {
        Self {
            item_ids: set.items.iter().map(ToString::to_string).collect(),
            categories: set.categories.iter().map(ToString::to_string).collect(),
            merchant_ids: set.merchants.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<Rule> for v1::Rule {
    fn from(rule: Rule) -> Self {
        use v1::rule::Kind;
        let kind = match rule {
            Rule::Bought(set) => Kind::Bought(set.into()),
            Rule::NotBought(set) => Kind::NotBought(set.into()),
            Rule::CategoryAffinity { category, min_share } => Kind::CategoryAffinity(v1::CategoryAffinity {
                category: category.to_string(),
                min_share,
            }),
            Rule::MinAffinity { min_score } => Kind::MinAffinity(min_score),
            Rule::NewUser => Kind::NewUser(true),
            Rule::LapsedUser { days } => Kind::LapsedDays(i32::try_from(days).unwrap_or(i32::MAX)),
            Rule::Attribute { name, values } => Kind::Attribute(v1::AttributeRule { name, values }),
        };
        Self { kind: Some(kind) }
    }
}
