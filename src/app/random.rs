//! Random bytes from the operating system.

#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness(#[from] getrandom::Error);

/// Returns `N` random bytes.
///
/// # Errors
/// [`NoRandomness`] when the operating system gives none.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
