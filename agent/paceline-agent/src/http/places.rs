//! How many connections there are, and whose. A place is given back when its connection is dropped, however it ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::problem::{Problem, ProblemKind};
use crate::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_PRINCIPAL_MAX, CONNECTIONS_UNPROVEN_MAX};
use crate::principal::Principal;

#[derive(Default)]
pub struct Places {
    taken_by: Mutex<HashMap<Whose, usize>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Whose {
    User(u32),
    Token(String),
    /// Over TCP, and no token was shown yet.
    Unproven,
}

pub struct Place {
    places: Arc<Places>,
    whose: Mutex<Whose>,
}

impl Places {
    /// `None` for the principal: not known yet.
    pub fn take(this: &Arc<Self>, principal: Option<&Principal>) -> Option<Place> {
        let whose = Whose::of(principal);
        let mut taken_by = this.lock();
        let total: usize = taken_by.values().sum();
        if total >= CONNECTIONS_MAX || !has_room(&taken_by, &whose) {
            return None;
        }
        *taken_by.entry(whose.clone()).or_default() += 1;
        drop(taken_by);
        Some(Place {
            places: Arc::clone(this),
            whose: Mutex::new(whose),
        })
    }

    pub fn taken(&self) -> usize {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Whose, usize>> {
        self.taken_by.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connection counts as this principal's from now on, if that one may have another.
    pub fn prove(&self, principal: &Principal) -> Result<(), Problem> {
        let new = Whose::of(Some(principal));
        let mut whose = self.whose.lock().unwrap_or_else(PoisonError::into_inner);
        if *whose == new {
            return Ok(());
        }
        let mut taken_by = self.places.lock();
        if !has_room(&taken_by, &new) {
            return Err(too_many());
        }
        give_back(&mut taken_by, &whose);
        *taken_by.entry(new.clone()).or_default() += 1;
        *whose = new;
        Ok(())
    }

    pub fn is_proven(&self) -> bool {
        *self.whose.lock().unwrap_or_else(PoisonError::into_inner) != Whose::Unproven
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let whose = self.whose.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut self.places.lock(), &whose);
    }
}

impl Whose {
    fn of(principal: Option<&Principal>) -> Self {
        match principal {
            Some(Principal::User { uid, .. }) => Whose::User(*uid),
            Some(Principal::Token { name }) => Whose::Token(name.clone()),
            None => Whose::Unproven,
        }
    }
}

pub fn too_many() -> Problem {
    let wrong = format!(
        "the agent keeps {CONNECTIONS_MAX} connections, {CONNECTIONS_PER_PRINCIPAL_MAX} of one user or token and \
         {CONNECTIONS_UNPROVEN_MAX} that have shown no token; close one first"
    );
    Problem::new(ProblemKind::TooManyConnections, wrong)
        .at("connections")
        .allowed(CONNECTIONS_PER_PRINCIPAL_MAX)
}

fn has_room(taken_by: &HashMap<Whose, usize>, whose: &Whose) -> bool {
    let own_max = match whose {
        Whose::User(_) | Whose::Token(_) => CONNECTIONS_PER_PRINCIPAL_MAX,
        Whose::Unproven => CONNECTIONS_UNPROVEN_MAX,
    };
    taken_by.get(whose).copied().unwrap_or(0) < own_max
}

fn give_back(taken_by: &mut HashMap<Whose, usize>, whose: &Whose) {
    if let Some(own) = taken_by.get_mut(whose) {
        *own -= 1;
        if *own == 0 {
            taken_by.remove(whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unproven_connections_are_few_and_leave_room_for_those_that_show_a_token() {
        let places = Arc::new(Places::default());
        let unproven: Vec<Place> = std::iter::from_fn(|| Places::take(&places, None)).collect();
        assert_eq!(unproven.len(), CONNECTIONS_UNPROVEN_MAX);
        let gateway = Principal::Token {
            name: "gateway".to_owned(),
        };
        unproven[0].prove(&gateway).expect("there is room");
        assert!(unproven[0].is_proven() && !unproven[1].is_proven());
        let more: Vec<Place> = std::iter::from_fn(|| Places::take(&places, Some(&gateway))).collect();
        assert_eq!(more.len(), CONNECTIONS_PER_PRINCIPAL_MAX - 1);
        assert!(unproven[1].prove(&gateway).is_err());
        drop(unproven);
        drop(more);
        assert_eq!(places.taken(), 0);
    }
}
