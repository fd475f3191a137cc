# One member by gap_fit of quippy-ase. GAP_SIGMA: energy (eV/atom) and force (eV/Å); GAP_MODEL: the descriptors
set -e
cd "$(dirname "$NFT_MODEL")"
OMP_NUM_THREADS=1 gap_fit at_file="$NFT_TRAIN" energy_parameter_name=REF_energy force_parameter_name=REF_forces \
    force_mask_parameter_name=force_mask e0_method=average default_sigma="{$GAP_SIGMA 0 0}" sparse_jitter=1e-8 \
    rnd_seed="$NFT_SEED" gp_file="$NFT_MODEL" gap="{$GAP_MODEL}"
