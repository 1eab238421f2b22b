//! A key that is not implemented does not exist (D39): every field of the settings is read by code outside of them.

#![allow(clippy::unwrap_used)] // a source that cannot be read fails the test

use std::{fs, path::Path};

/// Keys whose whole effect is that validation refuses every other value.
const FIXED: [&str; 1] = ["timezone"];

fn sources(folder: &Path, text: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_test = name.ends_with("tests.rs") || name == "fixtures.rs" || name == "testkit.rs";
        if path.is_dir() && name != "settings" {
            sources(&path, text);
        } else if name.ends_with(".rs") && !is_test {
            let file = fs::read_to_string(&path).unwrap();
            let code = file.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
}

/// Field names of every `…Settings` struct: what follows `pub ` and ends at `:`.
fn fields(sections: &str) -> Vec<String> {
    let words = sections.split("pub ").skip(1).filter_map(|rest| rest.split_once(':').map(|(name, _)| name));
    let plain = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    words.filter(plain).map(str::to_owned).collect()
}

/// Whether `.name` is read somewhere as a whole word.
fn is_read(code: &str, name: &str) -> bool {
    let access = format!(".{name}");
    code.match_indices(&access).any(|(at, _)| {
        let next = code[at + access.len()..].chars().next();
        !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '(')
    })
}

#[test]
fn d39_every_settings_field_is_read_outside_the_settings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut code = String::new();
    sources(&root, &mut code);
    let sections =
        ["settings/sections.rs", "settings/models.rs"].map(|file| fs::read_to_string(root.join(file)).unwrap());
    let fields = fields(&sections.concat());
    assert!(fields.len() > 200, "only {} fields found", fields.len());
    let excused = |name: &str| FIXED.contains(&name);
    let unused: Vec<&String> = fields.iter().filter(|name| !excused(name) && !is_read(&code, name)).collect();
    assert!(unused.is_empty(), "keys without an effect: {unused:?}; implement them or remove them everywhere");
}
