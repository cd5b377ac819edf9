#!/bin/sh
# Fit the demo's carbon GAP (a pair term and SOAP) to labelled structures; make it small and fast.
#   fit_gap.sh TRAIN.extxyz GAP.xml
set -eu
gap_fit "at_file=$1" "gp_file=$2" \
  gap="{distance_2b cutoff=4.0 cutoff_transition_width=1.0 n_sparse=20 delta=2.0 \
        covariance_type=ard_se theta_uniform=0.8 sparse_method=uniform add_species=T : \
        soap cutoff=4.0 cutoff_transition_width=1.0 n_max=6 l_max=4 atom_sigma=0.5 zeta=4 \
        n_sparse=${SPARSE:-400} delta=0.5 covariance_type=dot_product sparse_method=cur_points \
        add_species=T}" \
  e0="C:0.0" default_sigma="{0.01 0.2 0.0 0.0}" \
  energy_parameter_name=dft_energy force_parameter_name=dft_force \
  virial_parameter_name=none hessian_parameter_name=none config_type_parameter_name=config_type \
  config_type_sigma="{isolated_atom:0.0001:0.1:0.0:0.0:dimer:0.1:1.0:0.0:0.0}" \
  sparse_separate_file=T sparse_jitter=1e-8 do_copy_at_file=F
