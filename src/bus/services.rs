//! The services of a bus.

use super::Bus;
use crate::error::{Error, ErrorKind, Result};
use crate::service::core::Core;
use crate::service::{self, ServiceBuilder, ServiceInfo};
use crate::shm::map::Access;
use crate::topic::Payload;
use std::sync::Arc;

impl Bus {
    /// Names a service of this bus, to create or open it. `Req` and `Resp` are [`Raw`](crate::Raw) for bytes or the
    /// `Owned` types of Cap'n Proto structs.
    pub fn service<Req: Payload, Resp: Payload>(&self, name: &str) -> ServiceBuilder<Req, Resp> {
        ServiceBuilder::new(self.member.clone(), name)
    }

    /// The names of all services, in order.
    pub fn services(&self) -> Result<Vec<String>> {
        self.member.check_process()?;
        self.member.folder().folders(".service")
    }

    /// Looks at a service without taking part in it: options, members, calls, counters.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such service; `Corrupt` if it is damaged.
    pub fn inspect_service(&self, service: &str) -> Result<ServiceInfo> {
        service::inspect(&*self.open_service(service, Access::Read)?)
    }

    /// Removes a service with everything in it. Its name is free at once; processes that have it open keep it among
    /// themselves.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such service.
    pub fn remove_service(&self, service: &str) -> Result<()> {
        self.member.check_process()?;
        crate::shm::home::check_name("service", service)?;
        self.member.folder().remove_folder(&format!("{service}.service"))
    }

    pub(super) fn open_service(&self, service: &str, access: Access) -> Result<Arc<Core>> {
        self.member.check_process()?;
        crate::shm::home::check_name("service", service)?;
        let folder = self.member.folder();
        let opened =
            folder.open_folder(&format!("{service}.service")).map_err(|error| {
                match error.kind() {
                    ErrorKind::NotFound => {
                        let text = format!("bus {folder} has no service {service}");
                        Error::new(ErrorKind::NotFound, text)
                    }
                    _ => error,
                }
            })?;
        Core::open(service, opened, self.member.clone(), access)
    }
}
