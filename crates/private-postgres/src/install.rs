//! The command that installs PostgreSQL on this system.

use std::fs;

use super::account;

/// Returns what to do as a part of a sentence, with the command where the system is known.
pub fn remedy() -> String {
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let (command, needs_root) = match cfg!(target_os = "macos") {
        true => (Some("brew install postgresql@17"), false),
        false => (command(&os_release), true),
    };
    match command {
        Some(command) if needs_root && !account::is_root() => format!("install it with `{command}` as root"),
        Some(command) => format!("install it with `{command}`"),
        None => "install it with the package manager of this system".to_owned(),
    }
}

/// `os_release`: the text of `/etc/os-release`.
fn command(os_release: &str) -> Option<&'static str> {
    let systems = |key: &str| {
        let mut lines = os_release.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        value.trim_matches(['"', '\'']).split_whitespace()
    };
    systems("ID=").chain(systems("ID_LIKE=")).find_map(|system| {
        Some(match system {
            // A fresh container has no package lists.
            "debian" | "ubuntu" => "apt-get update && apt-get install -y postgresql",
            "amzn" => "dnf install -y postgresql15-server",
            "fedora" | "rhel" | "centos" => "dnf install -y postgresql-server",
            "alpine" => "apk add postgresql",
            "arch" => "pacman -Sy --noconfirm postgresql",
            "suse" | "opensuse" => "zypper --non-interactive install postgresql-server",
            _ => return None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_the_system_is_named() {
        let check = |os_release: &str, expected: &str| {
            assert_eq!(command(os_release).unwrap_or_default(), expected, "{os_release}");
        };
        check(
            "NAME=\"Linux Mint\"\nID_LIKE=\"ubuntu debian\"\nID=linuxmint\n",
            "apt-get update && apt-get install -y postgresql",
        );
        check("ID_LIKE=fedora\nID=\"amzn\"\n", "dnf install -y postgresql15-server");
        check("ID=plan9\n", "");
        check("", "");
    }
}
