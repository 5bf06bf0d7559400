#!/usr/bin/env bash
# ziggurat_tests on an emulated CPU with AVX-512 and bf16 products, for machines whose own has none: Bochs as a Sapphire
# Rapids, booting Linux with the tests and the libraries they need as its whole file system. As root on Debian, with
# 4 GB of disk; the first time takes ten minutes to build. It emulates some ten million instructions a second: choose
# few tests.
#   scripts/emulate_bf16.sh [--gtest_filter=...]
set -euo pipefail
cd "$(dirname "$0")/.."
filter=${1:---gtest_filter=Gemm.*:PackedWeights.*:Bf16.*:Attention.*:Shapes/Attention.*:Models/GptGolden.*:Precisions/TrainerParity.*}

apt-get install -y --no-install-recommends debootstrap cpio >/dev/null
source scripts/mpi_environment.sh
work=$PWD/build/emulator
debian=$work/debian      # Debian 13: the first with a Bochs that knows bf16
root=$work/root          # the emulated machine's file system

if [ ! -e "$work/debian.done" ]; then
  rm -rf "$debian"
  debootstrap --variant=minbase trixie "$debian"
  chroot "$debian" apt-get install -y --no-install-recommends bochs bochs-term bochsbios vgabios isolinux \
    syslinux-common xorriso busybox-static
  image=$(chroot "$debian" apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p')
  chroot "$debian" bash -c "cd /tmp && apt-get download $image || apt-get download $image-unsigned"
  dpkg -x "$debian"/tmp/linux-image-*.deb "$work/kernel"
  touch "$work/debian.done"
fi

# A Cooper Lake has bf16 products, and nothing that a Sapphire Rapids lacks.
cmake -S . -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DZIGGURAT_MARCH=cooperlake
cmake --build "$work/build" --target ziggurat_tests

tests=$work/build/tests/ziggurat_tests
rm -rf "$root"
mkdir -p "$root"/{bin,dev,etc,lib64,proc,sys,tmp,usr/share} "$root$PWD"
cp "$debian/usr/bin/busybox" "$root/bin/"
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
cp -r configs data_tools include kernels scripts src tests "$root$PWD/"
strip -o "$root/bin/ziggurat_tests" "$tests"
openmpi=/usr/lib/x86_64-linux-gnu/openmpi
for file in "$tests" $openmpi/lib/openmpi3/*.so; do ldd "$file"; done | awk '/=> \//{print $3}' | sort -u |
  while read -r library; do install -D "$library" "$root$library"; done
mkdir -p "$root$openmpi"
cp -rL $openmpi/lib "$root$openmpi/"
cp -rL /etc/openmpi "$root/etc/"
cp -rL /usr/share/openmpi "$root/usr/share/"
echo 'root:x:0:0:root:/:/bin/sh' > "$root/etc/passwd"
cat > "$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm
exec </dev/ttyS0 >/dev/ttyS0 2>&1
ifconfig lo 127.0.0.1 up
export HOME=/ OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
grep -o -m1 avx512_bf16 /proc/cpuinfo
cd '$PWD' && ziggurat_tests '$filter'
echo "exit code \$?"
sleep 1000000
INIT
chmod +x "$root/init"

disc=$debian/disc
rm -rf "$disc" && mkdir -p "$disc/isolinux"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) > "$disc/initrd"
cp "$work"/kernel/boot/vmlinuz-* "$disc/vmlinuz"
cp "$debian/usr/lib/ISOLINUX/isolinux.bin" "$debian/usr/lib/syslinux/modules/bios/ldlinux.c32" "$disc/isolinux/"
# The emulator's clock counts instructions: waiting must not sleep, and nothing be calibrated against another clock.
cat > "$disc/isolinux/isolinux.cfg" <<CFG
default tests
label tests
 kernel /vmlinuz
 append initrd=/initrd console=ttyS0 quiet mitigations=off tsc=reliable lpj=1000000 nopti nopcid idle=poll
CFG
chroot "$debian" xorriso -as mkisofs -quiet -o /disc.iso -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
  -boot-load-size 4 -boot-info-table /disc
# Without AMX, which the matrix library would prefer, and without what this Bochs or its BIOS stumbles over.
cat > "$debian/bochsrc" <<RC
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.stdvga.bin
cpu: model=sapphire_rapids, ips=50000000, exclude_features="amx, amx_int8, amx_bf16, waitpkg, pcid, lass, uintr, la57"
memory: guest=2048, host=2048
boot: cdrom
ata0-master: type=cdrom, path=/disc.iso, status=inserted
com1: enabled=1, mode=file, dev=/console
log: /bochs.log
RC

console=$debian/console
: > "$console"
script -qfc "stty rows 60 cols 100; TERM=linux chroot '$debian' bochs -q -f /bochsrc" /dev/null >/dev/null 2>&1 </dev/null &
emulator=$!
trap 'pkill -KILL -f "bochs.* /bochsrc" || true' EXIT
sed -u -e 's|\r||' -e '/^exit code/q' < <(tail --pid=$emulator -f "$console")
grep -q '^exit code 0' "$console" || { echo "emulate_bf16.sh: failed; what the emulator said: $debian/bochs.log" >&2; exit 1; }
