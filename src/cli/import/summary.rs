//! Prints the summary of an import.

use serde_json::json;

use crate::app::import::ImportSummary;
use crate::app::import::findings::{Contents, Count};

pub(super) fn print(summary: &ImportSummary, json: bool) -> anyhow::Result<()> {
    if json {
        let mut value = json!(summary);
        value["lines_per_second"] = json!(summary.lines_per_second().round());
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    match summary.import_id {
        Some(id) => println!("import {id}"),
        None => println!("nothing was stored"),
    }
    for record in &summary.first {
        println!("  {record}");
    }
    print_counts(summary);
    print_contents(&summary.contents);
    if !summary.columns_by_name.is_empty() {
        let columns: Vec<String> = summary
            .columns_by_name
            .iter()
            .map(|(field, column)| match *field == column {
                true => column.clone(),
                false => format!("{field} ({column})"),
            })
            .collect();
        println!("  optional columns taken by their name: {}", columns.join(", "));
    }
    for warning in &summary.warnings {
        println!("warning: {warning}");
    }
    Ok(())
}

/// Prints how many lines were stored, merged and rejected.
pub(in crate::cli) fn print_counts(summary: &ImportSummary) {
    let rate = summary.lines_per_second().round();
    println!(
        "read {} = stored {} + merged {} + rejected {}, in {:.1} s ({rate} lines per second)",
        summary.read, summary.stored, summary.merged, summary.rejected, summary.seconds
    );
    if summary.merged > 0 && summary.import_id.is_some() {
        let identical = summary.merged - summary.older - summary.overwritten - summary.dropped;
        println!(
            "  merged {}: {identical} identical, {} older, {} overwritten by a later line",
            summary.merged, summary.older, summary.overwritten
        );
        if summary.dropped > 0 {
            println!("  dropped {}: lines about users who were erased since", summary.dropped);
        }
    }
    if summary.filtered > 0 {
        println!(
            "  left out {}: lines that do not meet the conditions of --where",
            summary.filtered
        );
    }
    for (reason, lines) in &summary.rejects_by_reason {
        match summary.reject_examples.get(reason) {
            Some(example) => println!("  rejected {lines}: {reason}, such as {example}"),
            None => println!("  rejected {lines}: {reason}"),
        }
    }
    for (field, lines) in &summary.rejects_by_field {
        if let Some(column) = summary.columns_by_name.get(field.as_str()) {
            println!("  rejected {lines} for {field}, read from {column} by its name; --unmap {field} leaves it out");
        }
    }
    if let Some(path) = &summary.rejects_file {
        println!("The rejected lines are in {}.", path.display());
    }
    if summary.interrupted {
        println!(
            "Interrupted after line {}. Import the file again to import the rest.",
            summary.last_line
        );
    }
}

fn print_contents(contents: &Contents) {
    let count = |count: Count| match count.is_at_least {
        true => format!("more than {}", count.count),
        false => count.count.to_string(),
    };
    let mut parts = Vec::new();
    parts.extend(contents.users.map(|users| format!("{} users", count(users))));
    parts.extend(contents.items.map(|items| format!("{} items", count(items))));
    parts.extend(
        contents
            .times
            .map(|(first, last)| format!("times from {first} to {last}")),
    );
    parts.extend(
        contents
            .values
            .iter()
            .map(|(least, most)| format!("values from {least} to {most}")),
    );
    if !parts.is_empty() {
        println!("  {}", parts.join(", "));
    }
}
