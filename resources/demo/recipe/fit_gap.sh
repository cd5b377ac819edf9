#!/bin/sh
# Fit the demo's carbon GAP (a pair term and SOAP) to labelled structures; keep it small and fast.
#   fit_gap.sh FOLDER      reads FOLDER/gap_train.extxyz, writes FOLDER/gap_demo.xml and its
#                          sparse points gap_demo.xml.sparseX.demo1 (pairs) and .demo2 (SOAP)
set -eu
cd "$1"
rm -f gap_demo.xml gap_demo.xml.* gap_train.extxyz.idx
gap_fit at_file=gap_train.extxyz gp_file=gap_demo.xml \
  gap="{distance_2b cutoff=4.0 cutoff_transition_width=1.0 n_sparse=20 delta=2.0 \
        covariance_type=ard_se theta_uniform=0.8 sparse_method=uniform add_species=T : \
        soap cutoff=3.7 cutoff_transition_width=1.0 n_max=6 l_max=3 atom_sigma=0.5 zeta=4 \
        n_sparse=200 delta=1.0 covariance_type=dot_product sparse_method=cur_points \
        add_species=T}" \
  e0="C:0.0" default_sigma="{0.01 0.1 0.0 0.0}" \
  energy_parameter_name=dft_energy force_parameter_name=dft_force \
  virial_parameter_name=none hessian_parameter_name=none config_type_parameter_name=config_type \
  config_type_sigma="{isolated_atom:0.0001:0.1:0.0:0.0:dimer:0.1:1.0:0.0:0.0}" \
  sparse_separate_file=T sparse_jitter=1e-8 do_copy_at_file=F

# gap_fit names everything after the time of day; and 20 digits are twice what matters.
label=$(sed -n 's/.*label="\(GAP_[0-9_]*\)".*/\1/p' gap_demo.xml | head -n 1)
for number in 1 2; do
  long=gap_demo.xml.sparseX.$label$number
  short=gap_demo.xml.sparseX.demo$number
  awk '{ printf "%.11g\n", $1 }' "$long" > "$short"
  old=$(md5sum "$long" | cut -d ' ' -f 1)
  new=$(md5sum "$short" | cut -d ' ' -f 1)
  sed -i "s/$old/$new/" gap_demo.xml
  rm "$long"
done
sed -i "s/$label/demo/g" gap_demo.xml
rm -f gap_train.extxyz.idx
