//! Ranks: the MPI world and the collectives that training needs.
