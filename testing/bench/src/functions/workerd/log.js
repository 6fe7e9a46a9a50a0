// Lines go to workerd's own log.
export default { write: (level, message) => console.log(level, message) };
