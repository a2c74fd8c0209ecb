//! CelebA's lists and folders, in their common layouts.

use std::path::Path;

use ddpm_data::{DataError, DataSpec, FolderLabels, OnCorrupt, Source, SourceKind, Split, open};
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::{TempDir, tempdir};

use crate::pictures::encode;
use crate::{check_refused, read, source, spec, write};

/// The splits and the values of "Young" and "Smiling" of six images.
const SPLITS: [u32; 6] = [0, 0, 0, 1, 2, 2];
const VALUES: [[i32; 2]; 6] = [[-1, 1], [1, -1], [-1, -1], [1, 1], [-1, 1], [1, -1]];

fn kind(root: &Path, split: Split, labels: FolderLabels) -> SourceKind {
    SourceKind::Folder { root: root.to_path_buf(), split, labels }
}

fn smiling() -> FolderLabels {
    FolderLabels::Attribute("Smiling".into())
}

/// An image of CelebA's size whose brightness encodes its number.
fn portrait(number: u8, format: ImageFormat) -> Vec<u8> {
    encode(RgbImage::from_pixel(178, 218, Rgb([40 * number; 3])), format)
}

/// `000001.jpg` to `000006.jpg` in the folder `images`.
fn portraits(dir: &TempDir, images: &str) {
    for number in 1..=6 {
        write(dir, &format!("{images}/{number:06}.jpg"), portrait(number, ImageFormat::Jpeg));
    }
}

fn partition_text() -> String {
    (1..).zip(SPLITS).map(|(number, split)| format!("{number:06}.jpg {split}\n")).collect()
}

fn attributes_text() -> String {
    let row = |(number, [young, smiling]): (u32, [i32; 2])| format!("{number:06}.jpg {young:2} {smiling:2}\n");
    format!("6\nYoung Smiling \n{}", (1..).zip(VALUES).map(row).collect::<String>())
}

fn partition_csv() -> String {
    let rows = (1..).zip(SPLITS).map(|(number, split)| format!("{number:06}.jpg,{split}\n"));
    format!("image_id,partition\n{}", rows.collect::<String>())
}

fn attributes_csv() -> String {
    let row = |(number, [young, smiling]): (u32, [i32; 2])| format!("{number:06}.jpg,{young},{smiling}\n");
    format!("image_id,Young,Smiling\n{}", (1..).zip(VALUES).map(row).collect::<String>())
}

/// The data set with the authors' lists and the images in `images`.
fn celeba(images: &str) -> TempDir {
    let dir = tempdir().expect("temporary folder");
    portraits(&dir, images);
    write(&dir, "list_eval_partition.txt", partition_text());
    write(&dir, "list_attr_celeba.txt", attributes_text());
    dir
}

/// Opens the folder, leaving out images that are not in the lists.
fn skipping(root: &Path, split: Split, labels: FolderLabels) -> Result<std::sync::Arc<dyn Source>, DataError> {
    let kind = kind(root, split, labels);
    open(&DataSpec { on_corrupt: OnCorrupt::Skip, ..spec(kind, 16, 3) })
}

/// Asserts that each split has its images with their values of "Smiling".
fn check_splits(what: &str, root: &Path) {
    for (split, number) in [(Split::Train, 0), (Split::Valid, 1), (Split::Test, 2)] {
        let source = source(kind(root, split, smiling()), 16, 3).unwrap_or_else(|e| panic!("{what}: {e}"));
        let expected: Vec<usize> = (0..6).filter(|image| SPLITS[*image] == number).collect();
        assert_eq!((source.len(), source.classes()), (expected.len() as u64, Some(2)), "{what}");
        assert!(source.describe().contains(&format!("of the {split} split")), "{what}: {}", source.describe());
        assert_eq!(source.findings().warnings, [""; 0], "{what}");
        for (id, image) in (0..).zip(expected) {
            let (pixels, label) = read(&*source, id).expect("valid");
            assert_eq!(label, Some(u32::from(VALUES[image][1] == 1)), "{what}");
            assert!(pixels.iter().all(|v| v.abs_diff(40 * (image as u8 + 1)) <= 2), "{what}: image {id} of {split}");
        }
    }
}

#[test]
fn splits_and_attributes_are_found_in_every_layout() {
    for images in ["img_align_celeba", ".", "img_align_celeba/img_align_celeba", "img_align_celeba_png"] {
        check_splits(images, celeba(images).path());
    }
    let capitals = tempdir().expect("temporary folder");
    for number in 1..=6 {
        write(&capitals, &format!("IMG_{number:06}.JPG"), portrait(number, ImageFormat::Jpeg));
    }
    write(&capitals, "list_eval_partition.txt", partition_text().replace("0000", "img_0000"));
    write(&capitals, "list_attr_celeba.txt", attributes_text().replace("0000", "Img_0000"));
    check_splits("capitals", capitals.path());
    // The authors' own folders, Kaggle's CSV files; and the folder of images given while the lists are above it.
    let (authors, kaggle) = (tempdir().expect("temporary folder"), tempdir().expect("temporary folder"));
    portraits(&authors, "Img/img_align_celeba");
    write(&authors, "Img/img_celeba/000004.jpg", portrait(6, ImageFormat::Jpeg));
    write(&authors, "Eval/list_eval_partition.txt", partition_text());
    write(&authors, "Anno/list_attr_celeba.txt", attributes_text());
    portraits(&kaggle, "img_align_celeba/img_align_celeba");
    write(&kaggle, "list_eval_partition.csv", partition_csv());
    write(&kaggle, "list_attr_celeba.csv", attributes_csv());
    for (dir, below) in [
        (&authors, ""),
        (&authors, "Img"),
        (&authors, "Img/img_align_celeba"),
        (&kaggle, ""),
        (&kaggle, "img_align_celeba"),
        (&kaggle, "img_align_celeba/img_align_celeba"),
    ] {
        check_splits(below, &dir.path().join(below));
    }
}

#[test]
fn lists_written_by_other_programs_are_read() {
    let words = ["train", "Train", "training", "val", "test", "TEST"];
    let words: String = (1..).zip(words).map(|(number, word)| format!("{number:06}.jpg {word}\n")).collect();
    let zeros = attributes_csv().replace("-1", "0");
    let quoted = partition_csv().replace("00000", "\"00000").replace(".jpg", ".jpg\"");
    let crlf = |text: String| text.replace('\n', "\r\n");
    let bom = |text: String| format!("\u{feff}{text}");
    for (what, partition, attributes) in [
        ("CRLF", crlf(partition_text()), crlf(attributes_text())),
        ("byte order mark", bom(partition_text()), bom(attributes_text())),
        ("words", words, attributes_text()),
        ("CSV in a text file", partition_csv(), attributes_csv()),
        ("byte order mark, CSV and CRLF", bom(crlf(partition_csv())), bom(crlf(attributes_csv()))),
        ("zeros for -1", partition_text(), zeros),
        ("quotes, tabs", quoted, attributes_text().replace("jpg ", "jpg\t")),
        ("other ending", partition_text().replace("jpg", "png"), attributes_text().replace("jpg", "png")),
    ] {
        let dir = celeba("img_align_celeba");
        write(&dir, "list_eval_partition.txt", partition);
        write(&dir, "list_attr_celeba.txt", attributes);
        check_splits(what, dir.path());
    }
}

#[test]
fn without_a_partition_all_images_are_used_with_a_warning() {
    let attributes_only = tempdir().expect("temporary folder");
    portraits(&attributes_only, "img_align_celeba");
    write(&attributes_only, "list_attr_celeba.csv", attributes_csv());
    // As for torchvision: the folder above the data set.
    let above = tempdir().expect("temporary folder");
    portraits(&above, "celeba/img_align_celeba");
    write(&above, "celeba/list_eval_partition.txt", partition_text());
    for (dir, warning) in
        [(&attributes_only, "there is no list_eval_partition.txt or .csv here"), (&above, "this list is not used")]
    {
        let source = source(kind(dir.path(), Split::Train, FolderLabels::None), 16, 3).expect("valid");
        assert_eq!(source.len(), 6);
        assert!(!source.describe().contains("split"), "{}", source.describe());
        let warnings = source.findings().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(warning), "{warnings:?}");
    }
    // Other images have no splits, and cause no warning.
    let plain = tempdir().expect("temporary folder");
    portraits(&plain, "faces");
    let source_of = |split| source(kind(plain.path(), split, FolderLabels::None), 16, 3);
    let all = source_of(Split::Train).expect("valid");
    assert!(!all.describe().contains("split") && all.findings().warnings.is_empty());
    check_refused(source_of(Split::Test), &["test split", "list_eval_partition.txt"]);
    check_refused(source(kind(plain.path(), Split::Train, smiling()), 16, 3), &["list_attr_celeba.txt", "data.labels"]);
}

#[test]
fn unmatched_rows_and_images_are_counted() {
    let dir = celeba("img_align_celeba");
    std::fs::remove_file(dir.path().join("img_align_celeba/000002.jpg")).expect("written above");
    std::fs::remove_file(dir.path().join("img_align_celeba/000006.jpg")).expect("written above");
    let source_of = |split, labels| source(kind(dir.path(), split, labels), 16, 3);
    let found = source_of(Split::Train, smiling()).expect("valid");
    assert_eq!(found.len(), 2);
    let warnings = found.findings().warnings;
    assert_eq!(warnings.len(), 2);
    for (warning, list) in warnings.iter().zip(["list_eval_partition.txt", "list_attr_celeba.txt"]) {
        assert!(warning.contains(list) && warning.contains("2 of the 6 rows"), "{warning}");
    }

    let dir = celeba("img_align_celeba");
    let source_of = |split, labels| source(kind(dir.path(), split, labels), 16, 3);
    for number in [7, 8] {
        write(&dir, &format!("img_align_celeba/00000{number}.jpg"), portrait(1, ImageFormat::Jpeg));
    }
    let parts = ["list_eval_partition.txt", "2 of the 8 images", "000007.jpg", "data.on_corrupt = \"skip\""];
    check_refused(source_of(Split::Train, FolderLabels::None), &parts);
    let found = skipping(dir.path(), Split::Train, FolderLabels::None).expect("unlisted images are left out");
    let warnings = found.findings().warnings;
    assert!(found.len() == 3 && warnings.len() == 1 && warnings[0].contains("2 of the 8 images"), "{warnings:?}");

    // Rows that match nothing belong to another data set, even if images may be skipped.
    write(&dir, "list_eval_partition.txt", partition_text().replace("0000", "IMG_0000"));
    let refused = skipping(dir.path(), Split::Train, FolderLabels::None);
    check_refused(refused, &["none of the 8 images", "000001.jpg", "img_000001"]);
}

#[test]
fn invalid_lists_are_refused() {
    let dir = celeba("img_align_celeba");
    let misspelt = FolderLabels::Attribute("smilling".into());
    check_refused(
        source(kind(dir.path(), Split::Train, misspelt), 16, 3),
        &["list_attr_celeba.txt", "'smilling'", "did you mean 'Smiling'?"],
    );
    let whole = attributes_text();
    for (text, parts) in [
        (whole.replace("6\nYoung", "7\nYoung"), ["announces 7 images", "6 follow"]),
        (whole.replace("000002.jpg  1 -1", "000002.jpg  1 2"), ["line 4", "2 times 1 or -1"]),
        (whole.replace("000002.jpg  1 -1", "000002.jpg  -1"), ["line 4", "2 times 1 or -1"]),
        (attributes_csv().replace("02.jpg,1,-1", "02.jpg,1"), ["line 3", "2 times 1 or -1"]),
        (String::new(), ["line 1", "number of images"]),
        ("a page\nof HTML\n".into(), ["line 1", "number of images"]),
    ] {
        write(&dir, "list_attr_celeba.txt", text);
        let refused = source(kind(dir.path(), Split::Train, smiling()), 16, 3);
        check_refused(refused, &["list_attr_celeba.txt", parts[0], parts[1]]);
    }
    for (text, parts) in [
        ("000001.jpg 0\n000002.jpg 3\n", "line 2"),
        ("000001.jpg trian\n000002.jpg 0\n", "line 1"),
        ("000001.jpg 0\n000001.jpg 2\n", "line 2 contradicts an earlier line for 000001.jpg"),
        ("", "none of the 6 images"),
    ] {
        write(&dir, "list_eval_partition.txt", text);
        let refused = source(kind(dir.path(), Split::Train, FolderLabels::None), 16, 3);
        check_refused(refused, &["list_eval_partition.txt", parts]);
    }
}
