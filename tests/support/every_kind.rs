//! A tree with every kind of entry.

use super::hosts::Host;
use super::trees::sh;

/// Creates a tree with every kind of entry. `$1` is its path.
const EVERY_KIND: &str = r#"
    mkdir -- "$1"; cd -- "$1"
    : >empty; mkdir empty-dir
    echo plain >plain
    for name in ' ' 'two  blanks ' $'new\nline' $'\n' $'tab\tbell\a' "it's" '"quoted"' '$(touch pwned)' '`touch pwned`' \
        -rf --checkpoint-action=exec=false '*' '?[a-z]' '~' '!!' '#' ';' '&' '|' '\' '\n' '%s%n' @list .hidden ... \
        'grün' $'latin\xe9' $'\xff\xfe\x01' "$(printf 'x%.0s' {1..255})"; do
        printf '%q' "$name" >"./$name"
    done
    deep=deep; for n in {1..12}; do deep+=/$(printf 'd%.0s' {1..100}); done
    mkdir -p "$deep"; echo deep >"$deep/file"

    ln -s plain link; ln -s /nowhere//at/all dangling; ln -s $'odd\n\xff' odd-link; ln -s . loop
    ln -s "$(printf 'l%.0s' {1..500})" long-link
    ln plain hard-1; ln plain empty-dir/hard-2; ln -P link hard-link-to-a-link
    mkfifo fifo; mknod char c 1 3; mknod block b 7 250
    perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "socket", Listen => 1) or die'

    head -c 3000000 /dev/urandom >random
    truncate -s 40M sparse; printf middle | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
    truncate -s 5000001 hole
    head -c 8M /dev/urandom >punched; fallocate --punch-hole --offset 1M --length 5M punched
    head -c 3M /dev/zero >zeros

    for mode in 4755 2755 6711 0000 0444 0222; do echo "$mode" >"mode-$mode"; chmod "$mode" "mode-$mode"; done
    mkdir -m 2775 setgid-dir; mkdir -m 1777 sticky-dir; mkdir -m 0500 read-only-dir; mkdir -m 0000 closed-dir
    echo inside | tee setgid-dir/file read-only-dir/file >closed-dir/file
    chown 111:112 random; chown -h 131:4711 link; chown 4711:4712 setgid-dir empty; chmod 2775 setgid-dir
    chown 65534:65534 fifo char

    setfattr -n user.text -v value plain; setfattr -n user.bytes -v 0x000aff3d plain; setfattr -n user.none plain
    setfattr -n trusted.mine -v 1 plain; setfattr -h -n trusted.link -v 1 dangling; setfattr -n user.dir -v 1 empty-dir
    setfattr -n trusted.device -v 1 char
    setcap cap_net_raw+ep mode-4755
    setfacl -m u:111:rw,u:4711:r,g:112:rwx plain; setfacl -m u:111:rwx empty-dir
    setfacl -d -m u:4711:rwx,g::- empty-dir; setfacl -m u:7:rx .

    touch -d '2001-02-03 04:05:06.123456789Z' plain; touch -d '1969-12-31 12:00:00.25Z' empty; touch -d '2100-01-01Z' hole
    touch -h -d '2002-02-02 02:02:02.000000001Z' dangling; touch -d '2003-03-03 03:03:03.3Z' fifo char
    touch -d '2004-04-04 04:04:04.4Z' deep "$deep" read-only-dir closed-dir; touch -d '2005-05-05 05:05:05.5Z' empty-dir .
"#;

/// Creates a tree with every kind of entry.
#[track_caller]
pub(crate) fn make_every_kind(host: &Host, path: &str) {
    sh(host, EVERY_KIND, path);
}

/// Returns the size of a file's blocks, in bytes.
#[track_caller]
pub(crate) fn allocated(host: &Host, path: &str) -> u64 {
    sh(host, r#"du --block-size=1 -- "$1" | cut -f 1"#, path).trim().parse().expect("a number")
}
