//! The network between a server and PostgreSQL, which can lose what is sent.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::postgres::TestDatabase;

/// Carries connections over TCP until it is broken. Ends with its value.
pub struct Network {
    url: String,
    is_broken: Arc<watch::Sender<bool>>,
}

impl Network {
    pub async fn to(database: &TestDatabase) -> Self {
        let options = PgConnectOptions::from_str(database.url()).unwrap();
        let socket = format!(".s.PGSQL.{}", options.get_port());
        let socket = options
            .get_socket()
            .map(PathBuf::as_path)
            .map(|folder| folder.join(socket));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, name) = (listener.local_addr().unwrap(), options.get_database().unwrap());
        let is_broken = Arc::new(watch::Sender::new(false));
        tokio::spawn(carry_all(listener, socket.unwrap(), is_broken.clone()));
        Self {
            url: format!("postgres://postgres@{address}/{name}"),
            is_broken,
        }
    }

    /// Returns the URL of the database through this network.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on nothing that is sent arrives, and nobody is told. Connections that are open or opened now stay lost.
    pub fn break_down(&self) {
        self.is_broken.send_replace(true);
    }

    /// Carries new connections again.
    pub fn mend(&self) {
        self.is_broken.send_replace(false);
    }
}

async fn carry_all(listener: TcpListener, socket: PathBuf, is_broken: Arc<watch::Sender<bool>>) {
    // Lost connections stay open, as nobody is told of their end.
    let mut carried = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let (socket, is_broken) = (socket.clone(), is_broken.subscribe());
        carried.spawn(async move { carry(connection, &socket, is_broken).await });
    }
}

async fn carry(mut client: TcpStream, socket: &Path, mut is_broken: watch::Receiver<bool>) {
    let mut server = UnixStream::connect(socket).await.unwrap();
    let broken = async {
        // An error says that the test is over.
        let _ = is_broken.wait_for(|&is_broken| is_broken).await;
    };
    tokio::select! {
        biased;
        () = broken => std::future::pending().await,
        _ = copy_bidirectional(&mut client, &mut server) => {}
    }
}
