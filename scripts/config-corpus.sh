#!/usr/bin/env bash
# Ordinary configuration to measure the false alarms of the look for secrets on: what distribution packages bring.
#
#   scripts/config-corpus.sh FOLDER     downloads the packages named below and unpacks their configuration into FOLDER
#   BACKSTAY_CORPUS=FOLDER cargo test -p backstay-file-ops --test files ordinary_configuration -- --nocapture
#
# Nothing is installed. Packages that this suite does not have, or that are larger than 6 MB, are left out and named.
set -euo pipefail
export LC_ALL=C

[ $# -eq 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
folder=$1
largest=6000000
packages=(
  acpid adduser aide-common alsa-utils amanda-common amavisd-new anacron apache2 apache2-bin apparmor apparmor-profiles
  apt-listchanges aptitude-common at auditd autofs avahi-daemon awstats babeld backuppc bacula-common bacula-director
  bacula-fd bacula-sd beanstalkd bind9 bird2 bluez borgmatic byobu ceph-common certbot cfengine3 cgit chrony clamav-base
  clamav-daemon clamav-freshclam collectd-core containerd corosync cron cups-browsed cups-daemon dbus debconf dehydrated
  deluged dnsmasq dokuwiki dovecot-core dovecot-imapd drbd-utils dropbear-initramfs e2guardian ejabberd emacsen-common
  etckeeper exim4-base exim4-config fail2ban fontconfig-config freeradius freeradius-config frr gdm3 gitolite3 gitweb
  glusterfs-common gunicorn haproxy hdparm hostapd icecast2 icinga2-common ifupdown inetutils-inetd influxdb inspircd
  iptables-persistent irqbalance isc-dhcp-client isc-dhcp-server isync jetty9 kea-common keepalived knockd knot krb5-config
  krb5-kdc ldap-utils libapache2-mod-security2 libldap-common libpam-runtime libvirt-daemon-config-network
  libvirt-daemon-system lightdm lighttpd lm-sensors logcheck logcheck-database logrotate logwatch lvm2 lxc mailman3
  mariadb-common mariadb-server mdadm mediawiki memcached minidlna modsecurity-crs monit mosquitto motion msmtp
  multipath-tools mumble-server munin munin-node mutt mysql-common nagios4-common nagios4-core nano needrestart
  network-manager nfs-kernel-server nftables nginx-common ngircd nsd ntpsec nullmailer ocserv open-iscsi opendkim opendmarc
  opendnssec-common openssh-client openssh-server openssl openvpn pacemaker pdns-recursor pdns-server php8.2-cli
  php8.2-fpm phpmyadmin pipewire podman popularity-contest postfix postgresql-common ppp privoxy proftpd-core
  prometheus-alertmanager prometheus-node-exporter prosody psad pulseaudio pure-ftpd-common rabbitmq-server radvd
  redis-sentinel redis-server reportbug request-tracker5 rkhunter roundcube-core rpcbind rsnapshot rspamd rsync rsyslog
  samba samba-common screen sddm slapd smartmontools snmp snmpd snort-common spamassassin squid squidguard sslh
  ssl-cert sssd-common strongswan-libcharon strongswan-starter stunnel4 sudo supervisor suricata syslog-ng-core sysstat
  systemd tftpd-hpa tgt tinc tlp tmux tomcat10 tomcat10-user tor transmission-daemon tripwire ufw unattended-upgrades
  unbound uwsgi-core varnish vim-common vsftpd webalizer wireguard-tools wordpress wpasupplicant x11-common xinetd xl2tpd
  zabbix-agent zabbix-server-mysql znc zookeeperd zoneminder zsh-common
)

mkdir -p "$folder/tree"
debs=$(mktemp -d)
trap 'rm -rf "$debs"' EXIT
chmod 755 "$debs"
taken=0
for package in "${packages[@]}"; do
  size=$(apt-cache show --no-all-versions "$package" 2>/dev/null | awk '/^Size:/ { print $2; exit }')
  if [ -z "$size" ] || [ "$size" -gt "$largest" ]; then
    echo "left out: $package${size:+, $size bytes}" >&2
    continue
  fi
  (cd "$debs" && apt-get -q -o APT::Sandbox::User=root download "$package" >/dev/null 2>&1) \
    || { echo "left out: $package cannot be downloaded" >&2; continue; }
  # Configuration, and what packages bring as examples and defaults of it.
  mkdir -p "$folder/tree/$package"
  for deb in "$debs"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$folder/tree/$package" --wildcards --no-same-owner \
      './etc/*' './usr/lib/systemd/*' './lib/systemd/*' './usr/lib/tmpfiles.d/*' './usr/lib/sysctl.d/*' './usr/share/*/*.conf' \
      './usr/share/*/conf*/*' './usr/share/*/examples/*' './usr/share/doc/*/examples/*' './var/lib/*/*.conf' 2>/dev/null || true
    rm -f "$deb"
  done
  taken=$((taken + 1))
done
echo "$taken packages, $(find "$folder/tree" -type f | wc -l) files"
