export * from "./gen/chatsession/v1/chat_session.js";
export * from "./gen/chatsession/v1/error_reason.js";
export { BadRequest, ErrorInfo, ResourceInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
export { Status } from "./gen/google/rpc/status.js";
