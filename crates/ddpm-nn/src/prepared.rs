//! What inference makes of weights once instead of in every pass: weights as convolutions read them, and what a network
//! computes from the timestep alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Kind, TchError, Tensor};

/// The form in which a convolution reads its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// With the channels adjacent in memory, in this kind.
    Direct(Kind),
    /// Transformed for Winograd's algorithm, in this kind.
    Planes(Kind),
}

/// A parameter's weights in one form, in one part or in several, by the parameter's number.
type Forms = HashMap<(usize, Form), Vec<Tensor>>;

/// Weights in these forms. They are made on first use, and all handles to the weights share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared(Arc<Mutex<Forms>>);

impl Prepared {
    /// The parameter of this number in this form, as `make` makes it.
    pub(crate) fn get(
        &self,
        parameter: usize,
        form: Form,
        make: impl FnOnce() -> Result<Vec<Tensor>, TchError>,
    ) -> Result<Vec<Tensor>, TchError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = known.get(&(parameter, form)) {
            return Ok(handles(parts));
        }
        let made = make()?;
        let parts = handles(&made);
        known.insert((parameter, form), made);
        Ok(parts)
    }
}

/// What a network computes from the timestep alone: tables with a row for each of some timesteps.
#[derive(Debug)]
pub(crate) struct TimeTables {
    /// The row of each timestep, i64 `[T]`; for those that have none, one that does not exist.
    rows: Tensor,
    tables: Vec<Tensor>,
}

impl TimeTables {
    /// Tables whose rows are those of `timesteps`, in this order.
    pub(crate) fn new(timesteps: &[i64], tables: Vec<Tensor>) -> Result<Self, TchError> {
        let most = timesteps.iter().copied().max().unwrap_or(0);
        let mut rows = vec![timesteps.len() as i64; most as usize + 1];
        for (row, t) in timesteps.iter().enumerate() {
            rows[*t as usize] = row as i64;
        }
        let device = tables.first().map_or(tch::Device::Cpu, Tensor::device);
        Ok(Self { rows: Tensor::f_from_slice(&rows)?.f_to_device(device)?, tables })
    }

    /// Another handle to the same tables.
    pub(crate) fn shallow_clone(&self) -> Self {
        Self { rows: self.rows.shallow_clone(), tables: handles(&self.tables) }
    }

    /// The tables' rows for timesteps `t` i64 `[B]`.
    pub(crate) fn at(&self, t: &Tensor) -> Result<TimeRows<'_>, TchError> {
        Ok(TimeRows { rows: self.rows.f_index_select(0, t)?, tables: &self.tables })
    }
}

/// Rows of tables for the timesteps of a batch.
#[derive(Debug)]
pub(crate) struct TimeRows<'a> {
    rows: Tensor,
    tables: &'a [Tensor],
}

impl TimeRows<'_> {
    /// The rows of table number `table`, `[B, ...]`; none if there are fewer tables.
    pub(crate) fn of(&self, table: usize) -> Result<Option<Tensor>, TchError> {
        self.tables.get(table).map(|table| table.f_index_select(0, &self.rows)).transpose()
    }
}

fn handles(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}
