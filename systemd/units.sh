# What install.sh and add-service.sh share: configuration, units and rule of the service. They source
# this file and set
#   here, work     the folder of this file, and one for temporary files
#   root           the folder of an image, or nothing
#   unit_python    the interpreter that the units name, by its path in the running system
#   rigs, web      the names of rigs (an array), and whether the page is served (yes or no)
#   start          whether the service is started (yes or no)
# shellcheck shell=bash disable=SC2154

say() { echo "$*" >&2; }

fail() {
    say "$(basename "$0"): $*"
    exit 1
}

misused() {
    echo "$(basename "$0"): $*" >&2
    usage >&2
    exit 2
}

check_rig_names() {
    local rig
    for rig in "${rigs[@]}"; do
        [[ $rig =~ ^[a-z0-9_-]{1,32}$ ]] ||
            misused "a rig's name consists of a-z, 0-9, _ and -; '$rig' does not."
    done
}

# Make $root a whole path, and find out whether the page is there already.
find_system() {
    if [ -n "$root" ]; then
        mkdir -p "$root"
        root=$(cd "$root" && pwd)
    fi
    [ "$root" != / ] || root=''
    system=$root/etc/systemd/system
    had_web=no
    [ ! -e "$system/scentd-web.socket" ] || had_web=yes web=yes
}

# The package's units and those of the other ways would hide each other.
check_no_package() {
    [ ! -e "$root/lib/systemd/system/scentd.service" ] ||
        fail "the Debian package scentd is installed. Use it, or remove it first, which keeps" \
            "configuration and state: sudo apt remove scentd"
}

check_systemd() {
    [ -z "$root" ] || return 0
    [ "$(id -u)" -eq 0 ] || fail "only root can install a service. Run it again with sudo."
    [ -d /run/systemd/system ] ||
        fail "systemd is not running. In a container, run 'scentd run --config FILE' by the means of" \
            "the container; --root DIR installs the files and starts nothing."
}

# Copy a file only if the target does not exist: the owner may have changed it.
keep_or_put() {
    [ -e "$2" ] || install -D -m 644 "$1" "$2"
}

# The names of the rigs that have a configuration of their own.
named_rigs() {
    local file
    for file in "$root"/etc/scentd/*/scentd.yaml; do
        [ ! -e "$file" ] || basename "$(dirname "$file")"
    done
}

put_configuration() {
    install -d -m 755 "$root/etc/scentd"
    if ((!${#rigs[@]})) && [ -z "$(named_rigs)" ] ||
        [ -e "$root/etc/scentd/scentd.yaml" ]; then
        keep_or_put "$here/scentd.yaml" "$root/etc/scentd/scentd.yaml"
        [ -d "$root/etc/scentd/credentials" ] || install -d -m 700 "$root/etc/scentd/credentials"
    fi
    local rig
    for rig in "${rigs[@]}"; do
        local folder=$root/etc/scentd/$rig
        if [ ! -d "$folder/credentials" ]; then
            install -d -m 755 "$folder"
            install -d -m 700 "$folder/credentials"
        fi
        sed -e "s/^rig_id: rig\$/rig_id: $rig/" -e "s|/var/lib/scentd\$|/var/lib/scentd-$rig|" \
            -e "s|/etc/scentd/credentials|/etc/scentd/$rig/credentials|" \
            -e "s|reload scentd |reload scentd@$rig |" "$here/scentd.yaml" >"$work/scentd.yaml"
        keep_or_put "$work/scentd.yaml" "$folder/scentd.yaml"
    done
}

# Write a unit to $work, with the interpreter of the environment that it runs.
write_unit() {
    sed "s|/opt/scentd/current/bin/python|$unit_python|" "$here/$1" >"$work/$1"
}

# Put the units of the page. Where there are only named rigs, the page connects to the broker as the
# one that its unit names already, or else as the first. It reads the recordings of all of them.
put_page() {
    local rig other folders also='' unit=$system/scentd-web.service
    write_unit scentd-web.service
    if [ ! -e "$root/etc/scentd/scentd.yaml" ]; then
        rig=$(sed -n 's|^ExecStart=.* --config /etc/scentd/\([^ ]*\)/scentd.yaml.*|\1|p' "$unit" 2>/dev/null || true)
        if [ -z "$rig" ] || [ ! -e "$root/etc/scentd/$rig/scentd.yaml" ]; then
            rig=$(named_rigs)
            rig=${rig%%$'\n'*}
        fi
        sed -i -e "s|/etc/scentd/|/etc/scentd/$rig/|" -e "s|^StateDirectory=scentd\$|&-$rig|" \
            -e "s| scentd.service\$| scentd@$rig.service|" "$work/scentd-web.service"
    fi
    folders=$(sed -n 's/^StateDirectory=//p' "$work/scentd-web.service")
    for other in $(named_rigs); do
        [ "$other" != "${rig:-}" ] || continue
        also+=" --also /etc/scentd/$other/scentd.yaml" folders+=" scentd-$other"
    done
    sed -i -e "s|^ExecStart=.*|&$also|" -e "s|^StateDirectory=.*|StateDirectory=$folders|" "$work/scentd-web.service"
    install -D -m 644 -t "$system" "$work/scentd-web.service" "$here/scentd-web.socket"
}

# Remove a page that this installation added. A release without its packages could not serve it.
take_page_back() {
    [ "$web" = yes ] && [ "$had_web" = no ] || return 0
    systemctl --quiet disable scentd-web.socket || true
    rm -f "$system/scentd-web.service" "$system/scentd-web.socket"
    systemctl daemon-reload
}

# Open the address of the page. A socket cannot be restarted while its service runs; the next request
# of a browser starts the service from the new release.
start_page() {
    [ "$web" = yes ] || return 0
    systemctl stop scentd-web.service
    systemctl restart scentd-web.socket ||
        fail "scentd runs, but the address of its page cannot be opened: journalctl -u scentd-web.socket." \
            "If another program uses it, choose another one with: sudo systemctl edit scentd-web.socket"
}

put_units() {
    local unit
    mkdir -p "$system"
    for unit in scentd.service scentd@.service; do write_unit "$unit"; done
    install -D -m 644 -t "$system" "$work/scentd.service" "$work/scentd@.service"
    [ "$web" = no ] || put_page
    install -D -m 644 -t "$root/etc/udev/rules.d" "$here/99-scentd.rules"
    # The script that pip writes cannot be used: its first line would name a folder below --root.
    printf '#!/bin/sh\nexec %s -I -m scentd "$@"\n' "$unit_python" >"$work/scentd"
    install -D -m 755 "$work/scentd" "$root/usr/local/bin/scentd"
}

units() {
    [ ! -e "$root/etc/scentd/scentd.yaml" ] || echo scentd.service
    local rig
    for rig in $(named_rigs); do echo "scentd@$rig.service"; done
}

units_to_enable() {
    units
    [ "$web" = no ] || echo scentd-web.socket
}

start_units() {
    local unit failed=0
    for unit in $(units); do
        systemctl restart "$unit" || failed=1
    done
    return $failed
}

# Let the running systemd and udev know the files, and start the service if that is wanted.
enable_units() {
    systemctl daemon-reload
    # Apply the rule to the boards that are plugged in; a container has no udev.
    if udevadm control --reload 2>/dev/null; then
        udevadm trigger --subsystem-match=tty --subsystem-match=usb
    fi
    # shellcheck disable=SC2046 # unit names contain no spaces
    systemctl --quiet enable $(units_to_enable)
    [ "$start" = no ] || start_units || {
        say "The service did not start:"
        journalctl --no-pager --output=cat --lines=20 --unit='scentd*' >&2 || true
        return 1
    }
}

say_what_is_installed() {
    if [ -n "$root" ]; then
        # shellcheck disable=SC2046 # unit names contain no spaces
        say "scentd is installed below $root and was not started. Its configuration: $root/etc/scentd." \
            "To start it with the image: systemctl --root=$root enable" $(units_to_enable)
    else
        say "scentd is installed. Its configuration: /etc/scentd. Its log: journalctl -u scentd"
        [ "$web" = no ] || say "Its page, unless scentd-web.socket was changed: http://127.0.0.1:8733/"
    fi
}
