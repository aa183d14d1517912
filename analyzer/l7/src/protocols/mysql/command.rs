//! Commands, by their first byte. <https://dev.mysql.com/doc/dev/mysql-server/latest/my__command_8h.html>, those of MariaDB
//! from 0xfa.

macro_rules! commands {
    ($($variant:ident = $code:literal $name:literal,)*) => {
        /// What a client asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Command { $($variant,)* }

        impl Command {
            pub(super) fn of(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its name as in the documentation, the type of its requests.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The command with this name.
            pub(super) fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    Quit = 0x01 "COM_QUIT",
    InitDb = 0x02 "COM_INIT_DB",
    Query = 0x03 "COM_QUERY",
    FieldList = 0x04 "COM_FIELD_LIST",
    CreateDb = 0x05 "COM_CREATE_DB",
    DropDb = 0x06 "COM_DROP_DB",
    Refresh = 0x07 "COM_REFRESH",
    Shutdown = 0x08 "COM_SHUTDOWN",
    Statistics = 0x09 "COM_STATISTICS",
    ProcessInfo = 0x0a "COM_PROCESS_INFO",
    Connect = 0x0b "COM_CONNECT",
    ProcessKill = 0x0c "COM_PROCESS_KILL",
    Debug = 0x0d "COM_DEBUG",
    Ping = 0x0e "COM_PING",
    Time = 0x0f "COM_TIME",
    DelayedInsert = 0x10 "COM_DELAYED_INSERT",
    ChangeUser = 0x11 "COM_CHANGE_USER",
    BinlogDump = 0x12 "COM_BINLOG_DUMP",
    TableDump = 0x13 "COM_TABLE_DUMP",
    ConnectOut = 0x14 "COM_CONNECT_OUT",
    RegisterSlave = 0x15 "COM_REGISTER_SLAVE",
    StmtPrepare = 0x16 "COM_STMT_PREPARE",
    StmtExecute = 0x17 "COM_STMT_EXECUTE",
    StmtSendLongData = 0x18 "COM_STMT_SEND_LONG_DATA",
    StmtClose = 0x19 "COM_STMT_CLOSE",
    StmtReset = 0x1a "COM_STMT_RESET",
    SetOption = 0x1b "COM_SET_OPTION",
    StmtFetch = 0x1c "COM_STMT_FETCH",
    Daemon = 0x1d "COM_DAEMON",
    BinlogDumpGtid = 0x1e "COM_BINLOG_DUMP_GTID",
    ResetConnection = 0x1f "COM_RESET_CONNECTION",
    Clone = 0x20 "COM_CLONE",
    StmtBulkExecute = 0xfa "COM_STMT_BULK_EXECUTE",
    SlaveWorker = 0xfb "COM_SLAVE_WORKER",
    SlaveIo = 0xfc "COM_SLAVE_IO",
    SlaveSql = 0xfd "COM_SLAVE_SQL",
}

impl Command {
    /// The server does not answer it.
    pub(super) fn is_one_way(self) -> bool {
        matches!(self, Self::Quit | Self::StmtClose | Self::StmtSendLongData)
    }
}
