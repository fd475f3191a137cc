# One member by nequip-train, on one processor core, until it has used NEQUIP_SECONDS of processor time
set -e
cd "$(dirname "$NFT_MODEL")"
PYTHONPATH="$NEQUIP_INPUT" OMP_NUM_THREADS=1 nequip-train -cp "$NEQUIP_INPUT" -cn nequip hydra.run.dir="$PWD/run"
mv run/best.ckpt "$NFT_MODEL"
rm -r run
