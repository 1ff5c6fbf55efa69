module.exports = {
    flowFile: "flows.json",
    uiHost: "127.0.0.1",
    uiPort: false,
    httpAdminRoot: false,
    httpNodeRoot: false,
    telemetry: {enabled: false, updateNotification: false},
    logging: {console: {level: "warn", metrics: false, audit: false}},
    credentialSecret: false,
    contextStorage: {default: {module: "memory"}},
};
