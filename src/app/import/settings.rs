//! The configuration of imports.

use std::time::Duration;

use domain::error::InvalidField;

/// Section `import`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportSettings {
    /// Days after which the copies of what an import has overwritten are dropped.
    pub undo_days: u32,
    /// Most bytes of a file that a client uploads, as they are sent, and of what it has to be unpacked to on disk.
    pub max_upload_bytes: u64,
    /// Most uploads that a server imports at a time.
    pub max_uploads: usize,
    /// Longest wait for the next part of an upload.
    pub upload_timeout_ms: u64,
}

impl Default for ImportSettings {
    fn default() -> Self {
        Self {
            undo_days: 30,
            max_upload_bytes: 4 << 30,
            max_uploads: 2,
            upload_timeout_ms: 60_000,
        }
    }
}

impl ImportSettings {
    pub fn upload_timeout(&self) -> Duration {
        Duration::from_millis(self.upload_timeout_ms)
    }

    /// # Errors
    /// Names the configuration key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        for (key, value) in [
            ("import.max_upload_bytes", self.max_upload_bytes),
            ("import.max_uploads", self.max_uploads as u64),
            ("import.upload_timeout_ms", self.upload_timeout_ms),
        ] {
            if value == 0 {
                return Err(InvalidField::new(key, "OUT_OF_RANGE", "must be 1 or more, is 0"));
            }
        }
        Ok(())
    }
}
