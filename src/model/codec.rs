//! The bytes of a snapshot.
