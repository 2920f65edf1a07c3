//! The holdout of a campaign: the control group of users who are never offered its coupons.
//!
//! Nothing is drawn or stored. A user's arm follows from the campaign's salt and the user's id, so it is the same on every
//! server and in every run. Each campaign has a salt of its own, so that nobody is held out of every campaign.

use sha2::{Digest, Sha256};

use domain::id::UserId;

/// The number of arms that users are divided into; each holds one basis point of them.
pub const ARMS: u16 = 10_000;

/// Returns the arm of `user`, 0 to 9 999: the first 8 bytes of SHA-256(`salt` ‖ user id), big-endian, modulo [`ARMS`].
///
/// `salt`: the campaign's own.
///
/// Source: docs/formulas.md, "Holdout and lift".
pub fn arm_number(salt: &[u8; 16], user: &UserId) -> u16 {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(salt)
        .chain_update(user.as_str())
        .finalize()
        .into();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    // The remainder is below ARMS and so fits into u16.
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]) % u64::from(ARMS)) as u16
}

/// Returns whether `user` is held out of a campaign that holds out `basis_points` of the users.
///
/// 0 holds out nobody, 10 000 and more everybody. A user who is held out stays so when the basis points grow.
pub fn is_held_out(salt: &[u8; 16], user: &UserId, basis_points: u16) -> bool {
    arm_number(salt, user) < basis_points
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASCENDING: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const USERS: u32 = 100_000;

    fn user(id: impl AsRef<str>) -> UserId {
        UserId::new(id).unwrap()
    }

    fn users() -> impl Iterator<Item = UserId> {
        (0..USERS).map(|number| user(format!("user-{number}")))
    }

    /// Checks that `count` of [`USERS`] independent draws with `probability` lies within five standard deviations, as it does
    /// in all but one run of a million.
    #[track_caller]
    fn check_share(count: usize, probability: f64) {
        let expected = f64::from(USERS) * probability;
        let deviation = (expected * (1.0 - probability)).sqrt();
        let distance = (count as f64 - expected).abs();
        assert!(distance <= 5.0 * deviation, "{count} of {USERS}, not about {expected}");
    }

    /// The expected values are those of `int.from_bytes(hashlib.sha256(salt + id.encode()).digest()[:8], "big") % 10000` in Python.
    #[test]
    fn arms_are_those_of_an_independent_sha_256() {
        let check = |salt: [u8; 16], id: &str, arm: u16| {
            assert_eq!(arm_number(&salt, &user(id)), arm, "{salt:?} {id}");
            assert!(is_held_out(&salt, &user(id), arm + 1));
            assert!(!is_held_out(&salt, &user(id), arm));
        };
        let long = "x".repeat(128);
        check([0; 16], "u1", 1044);
        check([0; 16], "42", 8574);
        check([0; 16], "kundin-é", 2168);
        check([0; 16], &long, 7024);
        check(ASCENDING, "u1", 8149);
        check(ASCENDING, "42", 62);
        check(ASCENDING, "kundin-é", 5448);
        check(ASCENDING, &long, 7397);
        check([0xff; 16], "u1", 6665);
        check([0xff; 16], "42", 5622);
        check([0xff; 16], "kundin-é", 9385);
        check([0xff; 16], &long, 1366);
    }

    #[test]
    fn the_share_held_out_is_the_basis_points() {
        for basis_points in [0, 1, 50, 500, 1_000, 5_000, 9_999, 10_000, u16::MAX] {
            let held_out = users().filter(|user| is_held_out(&ASCENDING, user, basis_points));
            check_share(held_out.count(), (f64::from(basis_points) / 10_000.0).min(1.0));
        }
    }

    #[test]
    fn campaigns_hold_out_independently_of_each_other() {
        let (one, other) = (ASCENDING, [7; 16]);
        let in_both = users().filter(|user| is_held_out(&one, user, 1_000) && is_held_out(&other, user, 2_000));
        check_share(in_both.count(), 0.1 * 0.2);
    }

    proptest! {
        #[test]
        fn a_held_out_user_stays_so_when_the_share_grows(
            salt in any::<[u8; 16]>(),
            id in "[a-z0-9]{1,20}",
            fewer in 0u16..=10_000,
            more in 0u16..=10_000,
        ) {
            let (fewer, more) = (fewer.min(more), fewer.max(more));
            let user = user(id);
            prop_assert!(arm_number(&salt, &user) < ARMS);
            prop_assert!(!is_held_out(&salt, &user, fewer) || is_held_out(&salt, &user, more));
        }
    }
}
