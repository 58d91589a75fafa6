//! Which trees of rules are about a client.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{
    Principal,
    glob::Glob,
    rule::{Audience, Rule, Whom},
    tree::{Forest, RootId},
};

/// By name, for every kind of subject, the trees to search.
#[derive(Default)]
pub(super) struct Directory {
    everybody: Roots,
    anonymous: Roots,
    users: Names<Roots>,
    groups: Names<Roots>,
    clients: Clients,
}

type Names<T> = HashMap<Box<str>, T, FixedState>;

/// The trees of one subject: its own, and those of its roles, or of its groups.
#[derive(Clone, Default)]
struct Roots {
    own: Option<RootId>,
    others: Vec<RootId>,
}

/// The trees of rules that ask for the client identifier alone.
#[derive(Default)]
struct Clients {
    exact: Names<Roots>,
    /// Globs by the length of their prefixes, and by these: one look-up per length finds those that may match.
    globs: BTreeMap<usize, Names<Vec<(Glob, Roots)>>>,
}

impl Roots {
    fn own(&mut self, forest: &mut Forest) -> RootId {
        *self.own.get_or_insert_with(|| forest.add_root())
    }

    fn visit(&self, visit: &mut impl FnMut(RootId)) {
        self.own.iter().chain(&self.others).copied().for_each(visit);
    }

    fn adopt(&mut self, root: RootId) {
        if !self.others.contains(&root) {
            self.others.push(root);
        }
    }
}

impl Directory {
    /// Puts all rules into the trees of their subjects.
    pub(super) fn build(
        rules: &[Rule],
        groups: &BTreeMap<Box<str>, Vec<Box<str>>>,
        forest: &mut Forest,
    ) -> Result<Self, String> {
        let mut directory = Self::default();
        let mut roles: BTreeMap<&str, RootId> = BTreeMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let number = u32::try_from(number).map_err(|_| "there are too many rules")?;
            let Some(role) = &rule.audience.role else {
                let insert = |roots: &mut Roots, forest: &mut Forest| {
                    let root = roots.own(forest);
                    forest.insert(root, number, rule)
                };
                directory.for_each_subject(&rule.audience, |roots| insert(roots, forest))?;
                continue;
            };
            let root = match roles.get(&**role) {
                Some(root) => *root,
                None => {
                    let root = forest.add_root();
                    roles.insert(role, root);
                    directory.for_each_subject(&rule.audience, |roots| {
                        roots.adopt(root);
                        Ok(())
                    })?;
                    root
                }
            };
            forest.insert(root, number, rule)?;
        }
        directory.let_members_in(groups);
        Ok(directory)
    }

    /// Visits the roots of each subject of an audience.
    fn for_each_subject(
        &mut self,
        audience: &Audience,
        mut visit: impl FnMut(&mut Roots) -> Result<(), String>,
    ) -> Result<(), String> {
        match &audience.whom {
            Whom::Everybody if audience.clients.is_empty() => visit(&mut self.everybody),
            Whom::Everybody => audience.clients.iter().try_for_each(|glob| visit(self.clients.roots(glob))),
            Whom::Any(subjects) => {
                if subjects.anonymous {
                    visit(&mut self.anonymous)?;
                }
                for user in &subjects.users {
                    visit(self.users.entry(user.clone()).or_default())?;
                }
                subjects
                    .groups
                    .iter()
                    .try_for_each(|group| visit(self.groups.entry(group.clone()).or_default()))
            }
        }
    }

    /// Gives users the trees of the groups that the file says they are in.
    fn let_members_in(&mut self, groups: &BTreeMap<Box<str>, Vec<Box<str>>>) {
        for (group, members) in groups {
            let Some(roots) = self.groups.get(group) else { continue };
            for member in members {
                let user = self.users.entry(member.clone()).or_default();
                roots.visit(&mut |root| user.adopt(root));
            }
        }
    }

    /// Visits the trees that are about a client. One may be visited twice, by a group that the rules and the
    /// principal know.
    pub(super) fn visit(&self, principal: &Principal, client_id: &str, mut visit: impl FnMut(RootId)) {
        self.everybody.visit(&mut visit);
        match &principal.user {
            None => self.anonymous.visit(&mut visit),
            Some(user) => {
                if let Some(roots) = self.users.get(&**user) {
                    roots.visit(&mut visit);
                }
            }
        }
        if !self.groups.is_empty()
            && let Some(details) = &principal.details
        {
            let known = details.groups.iter().filter_map(|group| self.groups.get(&**group));
            known.for_each(|roots| roots.visit(&mut visit));
        }
        self.clients.visit(client_id, &mut visit);
    }
}

impl Clients {
    fn roots(&mut self, glob: &Glob) -> &mut Roots {
        if !glob.has_star() {
            return self.exact.entry(glob.as_str().into()).or_default();
        }
        let of_length = self.globs.entry(glob.prefix().len()).or_default();
        let known = of_length.entry(glob.prefix().into()).or_default();
        let at = known.iter().position(|(other, _)| other == glob).unwrap_or_else(|| {
            known.push((glob.clone(), Roots::default()));
            known.len() - 1
        });
        &mut known[at].1
    }

    fn visit(&self, client_id: &str, visit: &mut impl FnMut(RootId)) {
        if !self.exact.is_empty()
            && let Some(roots) = self.exact.get(client_id)
        {
            roots.visit(visit);
        }
        for (length, globs) in &self.globs {
            let Some(prefix) = client_id.as_bytes().get(..*length) else { break };
            let Some(known) = str::from_utf8(prefix).ok().and_then(|prefix| globs.get(prefix)) else {
                continue;
            };
            let matching = known.iter().filter(|(glob, _)| glob.matches(client_id));
            matching.for_each(|(_, roots)| roots.visit(visit));
        }
    }
}
