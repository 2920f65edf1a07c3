//! Parts of names and versions that this program does not know, and parts that are missing.

use super::*;

/// Puts a version into the container of a stored part, intact.
fn with_version(stored: &mut Stored, name: &str, version: u16) {
    let at = stored.iter().position(|(of, _)| of == name).unwrap();
    stored[at] = part_of_version(version, name, contents(&stored[at].1));
}

#[test]
fn a_part_of_unknown_name_is_left_out() {
    let mut stored = encoded(&full_parts());
    stored.push(part_of("spam", b"anything"));
    assert_eq!(decoded(stored.clone()).unwrap(), full_parts());

    let (name, bytes) = stored.pop().unwrap();
    let part = decode_part(&name, bytes.len() as u64, iter::once(bytes.clone())).unwrap();
    let reason = "part spam is left out: this program does not know it";
    assert_eq!(part.left_out().as_deref(), Some(reason));
    let mut damaged = bytes;
    damaged[22] ^= 1;
    let error = decode_part(&name, damaged.len() as u64, iter::once(damaged)).unwrap_err();
    let message = "part spam is damaged: its bytes do not match its checksum";
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_part_that_is_left_out_cannot_be_lost() {
    let mut stored = encoded(&full_parts());
    stored.push(part_of("spam", b"anything"));
    let written = checksum(&stored);
    stored.pop();
    assert!(matches!(decode(stored, &written), Err(CodecError::Exchanged { .. })));
}

#[test]
fn a_required_part_of_unknown_version_is_an_error_that_names_it() {
    for part in PARTS.iter().filter(|part| !OPTIONAL.contains(&part.name)) {
        let mut stored = encoded(&full_parts());
        with_version(&mut stored, part.name, 7);
        let error = decoded(stored).unwrap_err();
        let message = format!("part {} has layout version 7, but this program reads 0", part.name);
        assert_eq!(error.to_string(), message);
        assert!(error.is_of_another_release());
    }
}

#[test]
fn an_optional_part_of_unknown_version_is_unavailable_and_says_why() {
    let mut stored = encoded(&full_parts());
    for name in OPTIONAL {
        with_version(&mut stored, name, 7);
    }
    let (name, bytes) = stored.iter().find(|(name, _)| name == ITEM_WEIGHTS).unwrap();
    let part = decode_part(name, bytes.len() as u64, iter::once(bytes.clone())).unwrap();
    let reason = "part item_weights is left out: this program does not read its layout version 7";
    assert_eq!(part.left_out().as_deref(), Some(reason));

    let parts = decoded(stored).unwrap();
    let absence = Absence::UnknownVersion { version: 7 };
    assert_eq!(parts.item_weights.get(), Err(absence));
    let reason = "the snapshot holds it in layout version 7, which this program does not read; train a new snapshot";
    let reason = reason.to_owned();
    assert_eq!(parts.propensity, Propensity::NotFitted { reason });
    assert!(Snapshot::new(parts).is_ok());
}

#[test]
fn an_optional_part_that_was_not_written_is_unavailable_and_says_why() {
    let mut stored = encoded(&full_parts());
    stored.retain(|(name, _)| !OPTIONAL.contains(&name.as_str()));
    let parts = decoded(stored).unwrap();
    assert_eq!(parts.item_weights.get(), Err(Absence::NotWritten));
    assert_eq!(parts.default_ranker, DefaultRanker::Blended);
    assert_eq!(parts.orders.get(), Err(Absence::NotWritten));
    assert_eq!(parts.fitted_settings.get(), Err(Absence::NotWritten));
    let reason = "the snapshot was written without it; train a new snapshot".to_owned();
    assert_eq!(parts.propensity, Propensity::NotFitted { reason });
    assert!(Snapshot::new(parts).is_ok());
}

#[test]
fn an_optional_part_that_was_lost_is_an_error_that_names_it() {
    let written = checksum(&encoded(&full_parts()));
    for name in OPTIONAL {
        let mut stored = encoded(&full_parts());
        stored.retain(|(of, _)| of != name);
        let message = format!(
            "every part is intact, but they are not those that were written together; optional parts that are not among \
             them: {name}"
        );
        assert_eq!(decode(stored, &written).unwrap_err().to_string(), message);
    }
}

#[test]
fn every_part_has_a_name_of_its_own_and_reads_the_version_that_it_writes() {
    let names: std::collections::BTreeSet<_> = PARTS.iter().map(|part| part.name).collect();
    assert_eq!(names.len(), PARTS.len());
    for part in PARTS {
        assert!(part.reads(part.version), "{}", part.name);
        assert!(!part.reads(part.version + 1), "{}", part.name);
    }
}
