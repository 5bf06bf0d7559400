# Sourced by scripts that start mpirun on one machine: works as root, with more ranks than cores, and leaves the binding
# of threads to the program (Open MPI's default would put all threads of a rank on one core).
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
# A rank that waits for another must not spin on a core that the other needs.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
