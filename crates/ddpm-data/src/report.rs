//! What `data info` and `data stats` say about a data set, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::Source;
use crate::classes::class_phrases;
use crate::findings::{Findings, some_of};
use crate::survey::Survey;

/// Classes, sizes and groups of equal images that are listed in the text.
const CLASSES_SHOWN: usize = 100;
const SIZES_SHOWN: usize = 5;
const GROUPS_SHOWN: usize = 10;

/// What `data info` prints.
pub fn info(source: &dyn Source, survey: &Survey, as_json: bool) -> String {
    let (shape, findings) = (source.image(), source.findings());
    let (read, failed, mean) = (survey.read, survey.faults.len(), survey.mean_pixel());
    if as_json {
        return json!({
            "images": source.len(), "channels": shape.channels, "size": shape.size(), "classes": source.classes(),
            "class_table": class_table(source), "passed_over": findings.ignored.0, "warnings": findings.warnings,
            "read": read, "failed": failed, "mean_pixel": mean, "labels_read": survey.labels,
        })
        .to_string();
    }
    let mut text = head(source, &findings);
    let failures = if failed > 0 { format!(", {failed} cannot be read") } else { String::new() };
    let _ = write!(text, "read     {read} images, mean pixel {mean:.1} of 255{failures}");
    text
}

/// What `data stats` prints.
pub fn statistics(source: &dyn Source, survey: &Survey, as_json: bool) -> String {
    let shape = source.image();
    let (means, deviations): (Vec<f64>, Vec<f64>) = survey.moments().into_iter().unzip();
    if as_json {
        let sizes: Vec<Value> =
            survey.sizes.iter().map(|((w, h), n)| json!({ "width": w, "height": h, "images": n })).collect();
        return json!({
            "images": source.len(), "read": survey.read, "failed": survey.faults.len(), "channels": shape.channels,
            "size": shape.size(), "mean": means, "std": deviations, "stored_sizes": sizes,
            "class_table": class_table(source), "duplicates": survey.duplicates, "repeated": survey.repeated(),
        })
        .to_string();
    }
    let mut text = head(source, &source.findings());
    let figures = |values: &[f64]| values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(" ");
    let _ = writeln!(text, "read     {} images, {} cannot be read", survey.read, survey.faults.len());
    let _ = writeln!(text, "mean     {} (values from 0 to 1)", figures(&means));
    let _ = writeln!(text, "std      {}", figures(&deviations));
    let mut sizes: Vec<_> = survey.sizes.iter().collect();
    sizes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let sizes = some_of(sizes.into_iter().map(|((w, h), n)| format!("{w}x{h}: {n}")), SIZES_SHOWN);
    if !sizes.is_empty() {
        let _ = writeln!(text, "stored   {sizes} (width, height)");
    }
    let _ = write!(text, "repeated {} images have the pixels of an earlier one", survey.repeated());
    if !survey.duplicates.is_empty() {
        let equal = |ids: &Vec<u64>| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" = ");
        let _ = write!(text, ": images {}", some_of(survey.duplicates.iter().map(equal), GROUPS_SHOWN));
    }
    text
}

/// What both begin with, each line ended.
fn head(source: &dyn Source, findings: &Findings) -> String {
    let mut text = format!("{}\n", source.describe());
    let _ = writeln!(text, "images   {} of {} (channels, height, width)", source.len(), source.image());
    let classes = source.classes().map_or("none".into(), |classes| classes.to_string());
    let _ = writeln!(text, "classes  {classes}");
    let table = source.class_table();
    for class in class_phrases(&table).take(CLASSES_SHOWN) {
        let _ = writeln!(text, "         {class}");
    }
    if table.len() > CLASSES_SHOWN {
        let _ = writeln!(text, "         and {} more; --json lists all of them", table.len() - CLASSES_SHOWN);
    }
    if !findings.ignored.0.is_empty() {
        let _ = writeln!(text, "others   {} (not read)", findings.ignored);
    }
    text
}

fn class_table(source: &dyn Source) -> Vec<Value> {
    source.class_table().iter().map(|class| json!({ "name": class.name, "images": class.images })).collect()
}
