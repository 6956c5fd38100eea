//! Files that are read while Weir serves. What has no end, or waits for a writer, would hold up whoever reads it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a regular file, and nothing else: no pipe, no device, no folder.
///
/// # Errors
/// It cannot be opened, or is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("it is no regular file")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::net::tls::Identity;

    #[test]
    fn no_device_or_folder_is_opened() {
        for path in ["/dev/zero", "/"] {
            assert_eq!(open(Path::new(path)).unwrap_err().to_string(), "it is no regular file");
        }
        assert!(open(Path::new(file!().trim_start_matches("gateway/"))).is_ok());
    }

    #[test]
    fn a_certificate_is_read_from_a_regular_file_only() {
        let device = Path::new("/dev/null");
        assert!(Identity::read(device, device).unwrap_err().to_string().contains("it is no regular file"));
    }
}
