# To be sourced. Unpacks Debian packages into $folder, without root and without changing the system. Each function
# returns its failure itself, because `set -e` has no effect in a command before an ||.

codename() { (. /etc/os-release && echo "${VERSION_CODENAME:-}") 2>/dev/null || true; }

# Whether packages of Debian 12 can be unpacked here.
has_bookworm() { [ "$(codename)" = bookworm ] && [ "$(uname -m)" = x86_64 ] && command -v apt-get >/dev/null; }

# Run apt-get with its state in $folder; the system's package lists are neither read nor changed.
private_apt() {
    apt-get -qq -o Dir::State="$folder" -o Dir::State::Lists="$folder/lists" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$folder/cache" -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Acquire::Languages=none "$@"
}

# prepare SUITE…: fetch the package lists of these suites.
prepare() {
    mkdir -p "$folder"/{lists/partial,cache/archives/partial,debs,root}
    folder=$(cd "$folder" && pwd)
    for suite in "$@"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main"
    done >"$folder/sources.list"
    private_apt update
}

# unpack PACKAGE…: these packages only.
unpack() {
    (cd "$folder/debs" && private_apt download "$@" && for deb in *.deb; do dpkg-deb -x "$deb" "$folder/root" || exit 1; done)
}

# unpack_all PACKAGE…: these packages, and those of their dependencies that the system lacks.
unpack_all() {
    private_apt install --yes --no-install-recommends --download-only "$@" || return 1
    for deb in "$folder"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$folder/root" || return 1; done
}

# The folders in $folder that hold libraries, separated by colons; some packages use a folder of their own.
libraries() {
    find "$folder"/root/usr/lib/x86_64-linux-gnu "$folder"/root/lib/x86_64-linux-gnu -maxdepth 2 -name '*.so*' \
        -printf '%h\n' 2>/dev/null | sort -u | paste -sd:
}
