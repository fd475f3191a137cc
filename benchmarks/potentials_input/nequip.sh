# One member by nequip-train, on one processor core, for NEQUIP_TIME at most
set -e
cd "$(dirname "$NFT_MODEL")"
OMP_NUM_THREADS=1 nequip-train -cp "$NEQUIP_INPUT" -cn nequip hydra.run.dir="$PWD/run"
mv run/best.ckpt "$NFT_MODEL"
rm -r run
